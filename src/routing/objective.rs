//! What a policy wants least of, or most of, and what that makes a candidate cost.

use serde::{Deserialize, Serialize};

use super::Candidate;

/// What to minimise among adequate models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    #[default]
    Joules,
    Dollars,
    Latency,
    /// Not a cost: the highest adequacy wins.
    Quality,
}

impl Objective {
    /// Cost of a candidate, comparable under one objective only; infinite where unknown.
    pub fn cost(self, candidate: &Candidate) -> f64 {
        let known = match self {
            Self::Joules => candidate.joules.map(|joules| joules.0),
            Self::Dollars => candidate.dollars.map(|dollars| dollars.0),
            Self::Latency => candidate.ttft_ms,
            Self::Quality => Some(-candidate.p),
        };
        // Unknown cost is worst: it must not win by silence.
        known.unwrap_or(f64::INFINITY)
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::Joules => "joules",
            Self::Dollars => "dollars",
            Self::Latency => "latency",
            Self::Quality => "quality",
        }
    }
}
