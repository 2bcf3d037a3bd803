//! The logged requests under other rules: what each policy would have chosen, what it would have
//! taken, how good it would have been.
//!
//! Decides through `routing::decide`, the code that serves, and runs no model. What the log knows
//! (energy, price, label of a model that ran) is used as it is; what never ran is predicted, and
//! every figure says which of the two it is.

pub mod report;
pub mod simulate;
pub mod summary;

use std::sync::Arc;

use crate::routing::Policy;
use crate::traffic::Record;

pub use report::Report;
pub use simulate::{Play, Scenario};
pub use summary::Summary;

/// A replay under way; holds sums only, so a log of any length fits.
#[derive(Debug)]
pub struct Replay {
    logged: Summary,
    /// Requests whose logged rule, applied again, asks the model that was asked first.
    reproduced: u64,
    scenarios: Vec<(Scenario, Summary)>,
}

impl Replay {
    /// Compares `policies`, everything to the cloud, everything on this machine, and the oracle.
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
        self.logged.add(record, &Play::logged(record));
        self.reproduced += u64::from(simulate::reproduces(record));
        for (scenario, summary) in &mut self.scenarios {
            if let Some(play) = scenario.play(record) {
                summary.add(record, &play);
            }
        }
    }

    pub fn report(&self) -> Report {
        let replayed = self.scenarios.iter().map(|(scenario, sum)| (scenario.name(), sum));
        Report::new(&self.logged, self.reproduced, replayed)
    }
}
