//! Difference of two policies, request by request. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::simulate::Scenario;
use crate::routing::{Decision, TaskClass};
use crate::traffic::Record;
use crate::units::Joules;

/// Requests that are shown one by one; the moves count all of them.
const SHOWN: usize = 20;

/// What two policies do differently over a log.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Diff {
    pub requests: u64,
    pub different: u64,
    /// By the pair of first choices, most frequent first once [`Diff::finish`] was called.
    pub moves: Vec<Move>,
    /// The first of them, in the order of the log.
    pub examples: Vec<Example>,
    #[serde(skip)]
    counts: BTreeMap<(Name, Name), Sums>,
}

/// A model, or `None` where no model may answer.
type Name = Option<Arc<str>>;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    requests: u64,
    gain: f64,
    joules: Option<f64>,
}

/// Requests that go from one model to another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Move {
    pub from: Name,
    pub to: Name,
    pub requests: u64,
    /// Mean change of the predicted adequacy, −1 to 1.
    pub adequacy_gain: f64,
    /// Mean change of the predicted energy; absent if one of them was not predicted.
    pub joules_gain: Option<Joules>,
}

/// One request that two policies treat differently.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    pub request_id: Arc<str>,
    pub task: TaskClass,
    pub from: Choice,
    pub to: Choice,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    pub model: Name,
    pub p: Option<f64>,
    pub joules: Option<Joules>,
    pub reason: String,
}

impl Diff {
    pub fn add(&mut self, record: &Record, from: &Scenario, to: &Scenario) {
        let decide = |scenario: &Scenario| Some(scenario.terms(record)?.decide(record));
        let (Some(from), Some(to)) = (decide(from), decide(to)) else { return };
        self.requests += 1;
        let (before, after) = (Choice::of(&from), Choice::of(&to));
        if before.model == after.model {
            return;
        }
        self.different += 1;
        let key = (before.model.clone(), after.model.clone());
        let sums = self.counts.entry(key).or_insert(Sums { joules: Some(0.0), ..Sums::default() });
        sums.requests += 1;
        sums.gain += after.p.unwrap_or(0.0) - before.p.unwrap_or(0.0);
        let change = after.joules.zip(before.joules).map(|(after, before)| after.0 - before.0);
        sums.joules = sums.joules.zip(change).map(|(sum, change)| sum + change);
        if self.examples.len() < SHOWN {
            let (request_id, task) = (Arc::clone(&record.receipt.request_id), record.features.task);
            self.examples.push(Example { request_id, task, from: before, to: after });
        }
    }

    /// Puts the moves in order.
    #[must_use]
    pub fn finish(mut self) -> Self {
        let mean = |sum: f64, requests: u64| sum / requests as f64;
        self.moves = self
            .counts
            .iter()
            .map(|((from, to), sums)| Move {
                from: from.clone(),
                to: to.clone(),
                requests: sums.requests,
                adequacy_gain: mean(sums.gain, sums.requests),
                joules_gain: sums.joules.map(|joules| Joules(mean(joules, sums.requests))),
            })
            .collect();
        self.moves.sort_by_key(|one| std::cmp::Reverse(one.requests));
        self
    }
}

impl Choice {
    fn of(decision: &Decision) -> Self {
        let chosen = decision.chosen();
        Self {
            model: chosen.map(|one| Arc::clone(&one.model)),
            p: chosen.map(|one| one.p),
            joules: chosen.and_then(|one| one.joules),
            reason: decision.reason.to_string(),
        }
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |name: &Name| name.as_deref().unwrap_or("no model").to_owned();
        writeln!(f, "{} of {} requests differ", self.different, self.requests)?;
        for one in &self.moves {
            let joules = one
                .joules_gain
                .map_or("unknown energy".to_owned(), |Joules(joules)| format!("{joules:+.2} J"));
            writeln!(
                f,
                "  {} -> {}: {} requests, p {:+.3}, {joules} each",
                name(&one.from),
                name(&one.to),
                one.requests,
                one.adequacy_gain
            )?;
        }
        for example in &self.examples {
            let Example { request_id, task, from, to } = example;
            writeln!(
                f,
                "\n{request_id} ({}): {} -> {}",
                task.label(),
                name(&from.model),
                name(&to.model)
            )?;
            writeln!(f, "  - {}", from.reason)?;
            writeln!(f, "  + {}", to.reason)?;
        }
        Ok(())
    }
}
