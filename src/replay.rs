//! Replay of logged requests under other rules: the choice of each policy, its energy, price and
//! quality.
//!
//! Decides through `routing::decide`, the code that serves, and runs no model. Figures that the log
//! holds (energy, price, label of a model that ran) are used as they are; others are predicted, and
//! every figure is marked as one or the other.

pub mod conversation;
pub mod diff;
pub mod estimate;
pub mod evidence;
pub mod chart;
pub mod html_report;
pub mod paper;
pub mod report;
pub mod simulate;
pub mod summary;

use std::array;
use std::sync::Arc;

use crate::routing::Policy;
use crate::traffic::Record;
use estimate::Evaluation;
use evidence::{Evaluations, Evidence};

pub use diff::Diff;
pub use report::Report;
pub use simulate::{Scenario, Simulation};
pub use summary::Summary;

/// Models that are replayed alone; a log that names more has them in no row of their own.
const SINGLES_MAX: usize = 32;

/// A replay in progress; holds sums only, so the log may be of any length.
#[derive(Debug)]
pub struct Replay {
    logged: Summary,
    logged_evaluations: Evaluations,
    /// Requests for which the logged rule, applied again, selects the model that was asked first.
    reproduced: u64,
    unusable_propensities: u64,
    rows: Vec<Row>,
}

/// One rule with its sums.
#[derive(Debug)]
struct Row {
    scenario: Scenario,
    summary: Summary,
    evaluations: Evaluations,
}

impl Replay {
    /// Compares `policies`, cloud only, local only, each model alone, a random choice, and the
    /// oracle.
    pub fn new(policies: Vec<Arc<Policy>>) -> Self {
        let baselines =
            [Scenario::CloudOnly, Scenario::LocalOnly, Scenario::Random, Scenario::Oracle];
        let scenarios = policies.into_iter().map(Scenario::Policy).chain(baselines);
        Self {
            logged: Summary::default(),
            logged_evaluations: array::from_fn(|_| Evaluation::default()),
            reproduced: 0,
            unusable_propensities: 0,
            rows: scenarios.map(|scenario| Row::new(scenario, 0)).collect(),
        }
    }

    pub fn add(&mut self, record: &Record) {
        self.add_single_models(record);
        self.logged.add(record, &Simulation::logged(record));
        self.reproduced += u64::from(simulate::reproduces(record));
        let conversation = conversation::id(record);
        let candidates = simulate::candidates(record);
        match Evidence::new(record, &candidates, &record.rule) {
            Some(evidence) => {
                evidence.of_log().add_to(&mut self.logged_evaluations, &candidates, conversation);
            }
            None => self.unusable_propensities += 1,
        }
        for row in &mut self.rows {
            row.add(record, conversation);
        }
    }

    pub fn report(&self) -> Report {
        let rows =
            self.rows.iter().map(|row| (row.scenario.name(), &row.summary, &row.evaluations));
        Report::new(
            (&self.logged, &self.logged_evaluations),
            self.reproduced,
            self.unusable_propensities,
            rows,
        )
    }

    /// Adds a row for each model that the log has not named yet; the earlier requests, for which it
    /// was no candidate, have no answer from it.
    fn add_single_models(&mut self, record: &Record) {
        for evaluated in &*record.receipt.candidates {
            let model = &evaluated.candidate.model;
            let mut singles = 0;
            let known = self.rows.iter().any(|row| match &row.scenario {
                Scenario::Single(one) => {
                    singles += 1;
                    one == model
                }
                _ => false,
            });
            if !known && singles < SINGLES_MAX {
                let single = Scenario::Single(Arc::clone(model));
                // Before the oracle.
                let place = self.rows.len().saturating_sub(2);
                self.rows.insert(place, Row::new(single, self.logged.requests));
            }
        }
    }
}

impl Row {
    fn new(scenario: Scenario, unanswered: u64) -> Self {
        Self {
            scenario,
            summary: Summary::unanswered(unanswered),
            evaluations: array::from_fn(|_| Evaluation::default()),
        }
    }

    fn add(&mut self, record: &Record, conversation: u64) {
        let Some(terms) = self.scenario.terms(record) else { return };
        self.summary.add(record, &terms.simulate(record));
        // What is known of the oracle's choice is known only where it is the logged one.
        if self.scenario != Scenario::Oracle
            && let Some(evidence) = Evidence::new(record, &terms.candidates, &terms.rule)
        {
            evidence.add_to(&mut self.evaluations, &terms.candidates, conversation);
        }
    }
}
