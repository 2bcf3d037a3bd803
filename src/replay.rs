//! Replay of logged requests under other rules: the choice of each policy, its energy, price and
//! quality.
//!
//! Decides through `routing::decide`, the code that serves, and runs no model. Figures that the log
//! holds (energy, price, label of a model that ran) are used as they are; others are predicted, and
//! every figure is marked as one or the other.

pub mod report;
pub mod simulate;
pub mod summary;

use std::sync::Arc;

use crate::routing::Policy;
use crate::traffic::Record;

pub use report::Report;
pub use simulate::{Scenario, Simulation};
pub use summary::Summary;

/// A replay in progress; holds sums only, so the log may be of any length.
#[derive(Debug)]
pub struct Replay {
    logged: Summary,
    /// Requests for which the logged rule, applied again, selects the model that was asked first.
    reproduced: u64,
    scenarios: Vec<(Scenario, Summary)>,
}

impl Replay {
    /// Compares `policies`, cloud only, local only, and the oracle.
    pub fn new(policies: Vec<Arc<Policy>>) -> Self {
        let baselines = [Scenario::CloudOnly, Scenario::LocalOnly, Scenario::Oracle];
        let scenarios = policies.into_iter().map(Scenario::Policy).chain(baselines);
        Self {
            logged: Summary::default(),
            reproduced: 0,
            scenarios: scenarios.map(|scenario| (scenario, Summary::default())).collect(),
        }
    }

    pub fn add(&mut self, record: &Record) {
        self.logged.add(record, &Simulation::logged(record));
        self.reproduced += u64::from(simulate::reproduces(record));
        for (scenario, summary) in &mut self.scenarios {
            if let Some(play) = scenario.simulate(record) {
                summary.add(record, &play);
            }
        }
    }

    pub fn report(&self) -> Report {
        let replayed = self.scenarios.iter().map(|(scenario, sum)| (scenario.name(), sum));
        Report::new(&self.logged, self.reproduced, replayed)
    }
}
