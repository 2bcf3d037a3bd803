//! Why the first choice is first, in words for people and in one fixed word for metrics.

use std::fmt;
use std::sync::Arc;

use super::Objective;

/// Why the first choice is first.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// The cheapest of the models at or above the floor.
    Adequate {
        model: Arc<str>,
        p: f64,
        floor: f64,
        objective: Objective,
    },
    /// No model reaches the floor, so the most adequate one answers.
    BestAvailable {
        model: Arc<str>,
        p: f64,
        floor: f64,
    },
    Pinned {
        model: Arc<str>,
    },
    /// A local model begins; if its first tokens do not look sure, `next` answers.
    Watched {
        model: Arc<str>,
        next: Arc<str>,
    },
    NoCandidate,
}

impl Reason {
    /// A fixed word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Adequate { .. } => "adequate",
            Self::BestAvailable { .. } => "best_available",
            Self::Pinned { .. } => "pinned",
            Self::Watched { .. } => "watched",
            Self::NoCandidate => "no_candidate",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adequate { model, p, floor, objective: Objective::Quality } => {
                write!(f, "{model} has the best p = {p:.2} (floor {floor:.2})")
            }
            Self::Adequate { model, p, floor, objective } => {
                write!(
                    f,
                    "{model} costs the least {} with p = {p:.2} at or above the floor {floor:.2}",
                    objective.label()
                )
            }
            Self::BestAvailable { model, p, floor } => {
                write!(
                    f,
                    "no available model reaches the floor {floor:.2}; {model} comes nearest with p = {p:.2}"
                )
            }
            Self::Pinned { model } => write!(f, "the client asked for {model}"),
            Self::Watched { model, next } => {
                write!(f, "{model} begins and is watched; {next} takes over if it looks unsure")
            }
            Self::NoCandidate => f.write_str("no model can answer this request"),
        }
    }
}
