//! Explanation of a decision, as a sentence for people and as a fixed word for metrics. ASCII,
//! since it is sent in a header. Pure.

use std::fmt;
use std::sync::Arc;

use super::{Exclusion, Objective};
use crate::units::{Dollars, Joules};

/// Why the first choice is first, the second choice, and what restricted the decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    pub kind: ReasonKind,
    /// Fallback if the first choice fails.
    pub runner_up: Option<RunnerUp>,
    /// The conversation's model, if it may not answer this time; with `None` if it is no longer
    /// configured.
    pub previous_unavailable: Option<(Arc<str>, Option<Exclusion>)>,
    pub over_budget: Option<OverBudget>,
}

/// The step that determined the first choice.
#[derive(Clone, Debug, PartialEq)]
pub enum ReasonKind {
    /// The cheapest of the models at or above the floor.
    Adequate {
        model: Arc<str>,
        p: f64,
        floor: f64,
        objective: Objective,
        cost: f64,
    },
    /// No model reaches the floor; the most adequate one answers.
    BestAvailable {
        model: Arc<str>,
        p: f64,
        floor: f64,
    },
    /// The conversation's model; leaving it would gain too little.
    Stays {
        model: Arc<str>,
        rival: Arc<str>,
        gain: Gain,
    },
    /// The conversation's model waits for a tool result.
    ToolLoop {
        model: Arc<str>,
    },
    /// A local model starts; `next` answers if the confidence in its first tokens is below the
    /// threshold.
    Watched {
        model: Arc<str>,
        next: Arc<str>,
        threshold: f64,
    },
    /// Drawn at random, with this probability.
    Explored {
        model: Arc<str>,
        propensity: f64,
    },
    Pinned {
        model: Arc<str>,
        by_policy: bool,
    },
    /// No model may answer; each with its reason.
    NoCandidate(Vec<(Arc<str>, Exclusion)>),
}

/// Gain from leaving the conversation's model, and the gain required, in the objective's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gain {
    pub objective: Objective,
    pub of: f64,
    pub needed: f64,
}

/// The models that are excluded by a budget alone.
#[derive(Clone, Debug, PartialEq)]
pub struct OverBudget {
    pub first: Arc<str>,
    pub more: usize,
    pub max_joules: Option<Joules>,
    pub max_dollars: Option<Dollars>,
}

/// The second choice.
#[derive(Clone, Debug, PartialEq)]
pub struct RunnerUp {
    pub model: Arc<str>,
    pub p: f64,
    pub objective: Objective,
    pub cost: f64,
}

impl Reason {
    /// The fixed word for metrics.
    pub fn label(&self) -> &'static str {
        match self.kind {
            ReasonKind::Adequate { .. } => "adequate",
            ReasonKind::BestAvailable { .. } => "best_available",
            ReasonKind::Stays { .. } => "stays",
            ReasonKind::ToolLoop { .. } => "tool_loop",
            ReasonKind::Explored { .. } => "explored",
            ReasonKind::Pinned { .. } => "pinned",
            ReasonKind::Watched { .. } => "watched",
            ReasonKind::NoCandidate(_) => "no_candidate",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        match &self.previous_unavailable {
            Some((model, Some(why))) => {
                write!(f, "; the conversation was on {model}, which may not answer: {why}")?;
            }
            Some((model, None)) => {
                write!(f, "; the conversation was on {model}, which is no longer configured")?;
            }
            None => {}
        }
        if let Some(next) = &self.runner_up {
            write!(f, "; next is {}", next.model)?;
            if next.objective != Objective::Quality {
                write!(f, " at {}", next.objective.show(next.cost))?;
            }
            write!(f, " with p = {:.2}", next.p)?;
        }
        if let Some(over) = &self.over_budget {
            write!(f, "; {over}")?;
        }
        Ok(())
    }
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.more > 0 {
            write!(f, " and {} more", self.more)?;
        }
        f.write_str(" may not answer within the budget of ")?;
        match (self.max_joules, self.max_dollars) {
            (Some(joules), Some(dollars)) => write!(f, "{joules} and {dollars}"),
            (Some(joules), None) => write!(f, "{joules}"),
            (None, Some(dollars)) => write!(f, "{dollars}"),
            // Without a budget no model is over it.
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for ReasonKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adequate { model, p, floor, objective: Objective::Quality, .. } => {
                write!(f, "{model} has the best p = {p:.2} (floor {floor:.2})")
            }
            Self::Adequate { model, p, floor, objective: Objective::Tradeoff, cost } => {
                let shown = Objective::Tradeoff.show(*cost);
                write!(f, "{model} has the best {shown} with p = {p:.2} (floor {floor:.2})")
            }
            Self::Adequate { model, p, floor, objective: Objective::Latency, cost } => {
                let shown = Objective::Latency.show(*cost);
                write!(
                    f,
                    "{model} answers soonest ({shown}) with p = {p:.2} at or above the floor {floor:.2}"
                )
            }
            Self::Adequate { model, p, floor, objective, cost } => {
                write!(
                    f,
                    "{model} costs the least {} ({}) with p = {p:.2} at or above the floor {floor:.2}",
                    objective.label(),
                    objective.show(*cost)
                )
            }
            Self::BestAvailable { model, p, floor } => {
                write!(
                    f,
                    "no available model reaches the floor {floor:.2}; {model} comes nearest with p = {p:.2}"
                )
            }
            Self::Watched { model, next, threshold } => {
                write!(
                    f,
                    "{model} starts; {next} takes over if the confidence in its first tokens is below {threshold:.2}"
                )
            }
            Self::Stays { model, rival, gain } => {
                write!(f, "the conversation stays on {model}: {rival} would gain {gain}")
            }
            Self::ToolLoop { model } => {
                write!(f, "{model} called a tool and gets its result")
            }
            Self::Explored { model, propensity } => {
                write!(f, "explored: {model} was drawn with probability {propensity:.4}")
            }
            Self::Pinned { model, by_policy: false } => write!(f, "the client asked for {model}"),
            Self::Pinned { model, by_policy: true } => {
                write!(f, "the policy gives tasks of this class to {model}")
            }
            Self::NoCandidate(excluded) => {
                f.write_str("no model can answer this request")?;
                let mut between = " (";
                for (model, why) in excluded {
                    write!(f, "{between}{model}: {why}")?;
                    between = ", ";
                }
                f.write_str(if excluded.is_empty() { "" } else { ")" })
            }
        }
    }
}

impl fmt::Display for Gain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |amount: f64| match self.objective {
            objective if objective.is_in_adequacy() => format!("{amount:.3} of p"),
            objective => objective.show(amount),
        };
        if self.of > 0.0 {
            write!(f, "{}, less than the switch costs ({})", show(self.of), show(self.needed))
        } else {
            f.write_str("nothing")
        }
    }
}
