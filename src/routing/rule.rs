//! The rule for one request: all inputs of `decide()` other than the features and the candidates.
//! Pure.
//!
//! Logged with the request, so that replay decides from the same data.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::objective::Lambda;
use super::{Candidate, Cascade, Objective};
use crate::locality::Locality;
use crate::units::{Dollars, Joules};

/// A policy applied to one request, with the request's overrides, its conversation and its random
/// sample.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    pub objective: Objective,
    /// Least adequacy, 0 to 1, to compete on cost.
    pub floor: f64,
    /// The request must stay on this machine. Takes precedence over everything else.
    pub local_only: bool,
    /// Machines of the operator's own network count as local.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_network_is_local: bool,
    /// The only model that may answer: named by the client, or by the policy for this task class.
    pub pinned: Option<Arc<str>>,
    /// The policy pinned the model, not the client.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned_by_policy: bool,
    /// Limit of the expected energy of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_joules: Option<Joules>,
    /// Limit of the expected price of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_dollars: Option<Dollars>,
    #[serde(default, skip_serializing_if = "Lambda::is_zero")]
    pub lambda: Lambda,
    /// Least gain for which a conversation changes its model: in adequacy where adequacy is
    /// maximised, else a share of the cost.
    #[serde(default)]
    pub switch_gain: f64,
    /// The model that the conversation is on.
    #[serde(default, rename = "stay", skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explore: Option<Explore>,
    /// Local model first, with escalation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cascade: Option<Cascade>,
}

/// The model that answered a conversation's last turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affinity {
    pub model: Arc<str>,
    /// The model waits for the result of a tool that it called.
    #[serde(default)]
    pub tool_loop: bool,
}

/// Random choice of the first model, so that the log supports off-policy estimates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explore {
    /// Probability of choosing uniformly among all models that may answer, 0 to 1.
    pub share: f64,
    /// Random number, uniform in 0 to below 1.
    #[serde(rename = "draw")]
    pub sample: f64,
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

    /// Cost of a candidate under the rule's objective; less is better.
    pub fn cost(&self, candidate: &Candidate) -> f64 {
        self.objective.cost(self.lambda, candidate.p, &candidate.costs())
    }

    /// Whether the candidate reaches the floor.
    pub fn is_adequate(&self, candidate: &Candidate) -> bool {
        candidate.p >= self.floor
    }

    /// Loss, in the objective's unit, if the conversation leaves this model and its cache; 0 if
    /// there is none or it is unknown.
    pub fn cache_value(&self, candidate: &Candidate) -> f64 {
        let Some(cache) = &candidate.cache else { return 0.0 };
        let without = self.objective.cost(self.lambda, candidate.p, &cache.without);
        let value = without - self.cost(candidate);
        if value.is_finite() { value.max(0.0) } else { 0.0 }
    }
}
