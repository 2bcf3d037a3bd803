//! Workload in the paper's setting: four local models, a cloud model, and which queries each can
//! answer. Constants with their sources; pure.

use std::ops::AddAssign;

use crate::routing::{Candidate, Route};
use crate::units::Joules;

/// A local model, with its costs in parts of the cloud model's for the same query.
pub struct Rung {
    pub model: &'static str,
    /// Share of all queries, 0 to 1, for which it is the smallest model that is right.
    share: f64,
    costs: Costs,
}

/// Energy, compute and price of a query, in parts of the cloud model's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Costs {
    pub energy: f64,
    pub compute: f64,
    pub cost: f64,
}

/// Shares: accuracies of Qwen3-4B, 8B and 14B (49.6, 57.5, 60.0 %), and 80.7 % of the queries that
/// stay local under the oracle, all from the paper.
///
/// Costs: the paper prints none by model. Compute is in proportion to the weights in billions
/// (4, 8, 14, 21 of 235) and price to the output prices of its table 10 (0, 0.138, 0.124, 0.14 of
/// 0.88 $ per million tokens), each scaled by one number so that the oracle's saving is the printed
/// one (compute × 1.093, price × 1.415); energy, of which nothing is printed, is the one number,
/// the same for all four, that gives the oracle's −80.4 %. What is computed from them rather than
/// put in are the other routers and the honest accounting.
pub const RUNGS: [Rung; 4] = [
    rung("qwen3-4b", 0.496, 4.0, 0.0),
    rung("qwen3-8b", 0.079, 8.0, 0.138),
    rung("qwen3-14b", 0.025, 14.0, 0.124),
    rung("gpt-oss-20b", 0.207, 21.0, 0.14),
];

/// Position of the cloud model, behind the rungs.
pub const CLOUD: usize = RUNGS.len();
const CLOUD_MODEL: &str = "qwen3-235b";

const fn rung(model: &'static str, share: f64, billions: f64, dollars: f64) -> Rung {
    let costs = Costs {
        energy: 0.003 / 0.807,
        compute: 1.093 * billions / 235.0,
        cost: 1.415 * dollars / 0.88,
    };
    Rung { model, share, costs }
}

/// A query by the position of the smallest model that is right; all larger ones are too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    smallest: usize,
}

impl Query {
    /// The query at a place from 0 to 1 of a workload in which the easy ones come first.
    pub fn at(place: f64) -> Self {
        let mut below = 0.0;
        for (position, rung) in RUNGS.iter().enumerate() {
            below += rung.share;
            if place < below {
                return Self { smallest: position };
            }
        }
        Self { smallest: CLOUD }
    }

    pub fn is_answered_by(self, position: usize) -> bool {
        position >= self.smallest
    }

    /// What a router that is wrong takes it for: too hard for every local model, or, if it is, fit
    /// for the largest of them.
    #[must_use]
    pub fn mistaken(self) -> Self {
        Self { smallest: if self.smallest == CLOUD { CLOUD - 1 } else { CLOUD } }
    }

    /// The models as candidates, for a router that knows which of them are right.
    pub fn candidates(self) -> Vec<Candidate> {
        (0..=CLOUD).map(|position| self.candidate(position)).collect()
    }

    fn candidate(self, position: usize) -> Candidate {
        let (model, route) = match RUNGS.get(position) {
            Some(rung) => (rung.model, Route::Local),
            None => (CLOUD_MODEL, Route::Cloud),
        };
        let p = if self.is_answered_by(position) { 1.0 } else { 0.0 };
        Candidate {
            // In the order of their sizes, in a unit that does not matter.
            joules: Some(Joules(position as f64 + 1.0)),
            ..Candidate::of_unknown_cost(model, route, p)
        }
    }
}

/// Position of a model by its name.
pub fn place(model: &str) -> usize {
    RUNGS.iter().position(|rung| rung.model == model).unwrap_or(CLOUD)
}

pub fn costs(position: usize) -> Costs {
    let cloud = Costs { energy: 1.0, compute: 1.0, cost: 1.0 };
    RUNGS.get(position).map_or(cloud, |rung| rung.costs)
}

impl AddAssign for Costs {
    fn add_assign(&mut self, other: Self) {
        self.energy += other.energy;
        self.compute += other.compute;
        self.cost += other.cost;
    }
}
