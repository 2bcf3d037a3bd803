//! The rule by which one request is decided: all that `decide()` reads
//! apart from the features of the request and the candidates. Pure.
//!
//! Logged with the request, so that replay decides from the same data.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::objective::Lambda;
use super::{Candidate, Cascade, Objective};
use crate::locality::Locality;
use crate::units::{Dollars, Joules};

/// A policy applied to one request, with what the request, its conversation and chance add.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    pub objective: Objective,
    /// Least adequacy a model must reach to compete on cost, 0 to 1.
    pub floor: f64,
    /// The conversation must not leave this machine. Wins over everything.
    pub local_only: bool,
    /// Machines of the operator's own network count as local.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_network_is_local: bool,
    /// No other model may answer: the client named it, or the policy did for requests of this task.
    pub pinned: Option<Arc<str>>,
    /// It was the policy that pinned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned_by_policy: bool,
    /// Most that an answer may be expected to take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_joules: Option<Joules>,
    /// Most that an answer may be expected to cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_dollars: Option<Dollars>,
    #[serde(default, skip_serializing_if = "Lambda::is_zero")]
    pub lambda: Lambda,
    /// Least gain for which a conversation leaves its model: in adequacy where adequacy is maximised, else as a share
    /// of the cost.
    #[serde(default)]
    pub switch_gain: f64,
    /// The model that the conversation is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stay: Option<Stay>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explore: Option<Explore>,
    /// Try a local model first and watch it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cascade: Option<Cascade>,
}

/// The model that answered a conversation's last turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stay {
    pub model: Arc<str>,
    /// It waits for the result of a tool that it called.
    #[serde(default)]
    pub tool_loop: bool,
}

/// Choosing otherwise now and then, so that the log supports off-policy estimates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explore {
    /// Probability of choosing evenly among all that may answer, 0 to 1.
    pub share: f64,
    /// The dice: uniform from 0 to below 1.
    pub draw: f64,
}

impl Rule {
    /// The farthest deployment that the conversation may reach.
    pub fn reach(&self) -> Locality {
        match (self.local_only, self.own_network_is_local) {
            (false, _) => Locality::ThirdParty,
            (true, true) => Locality::OwnNetwork,
            (true, false) => Locality::OnHost,
        }
    }

    /// What this candidate comes to under the rule's objective; less is better.
    pub fn cost(&self, candidate: &Candidate) -> f64 {
        self.objective.cost(self.lambda, candidate.p, &candidate.costs())
    }

    /// Whether it may compete on cost.
    pub fn is_adequate(&self, candidate: &Candidate) -> bool {
        candidate.p >= self.floor
    }

    /// What is lost in the objective's unit when the conversation leaves this model and its cache; 0 if that is not
    /// known to be worth anything.
    pub fn cache_value(&self, candidate: &Candidate) -> f64 {
        let Some(cache) = &candidate.cache else { return 0.0 };
        let without = self.objective.cost(self.lambda, candidate.p, &cache.without);
        let value = without - self.cost(candidate);
        if value.is_finite() { value.max(0.0) } else { 0.0 }
    }
}
