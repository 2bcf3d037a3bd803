//! Record of one request in the log, and the receipt within it that clients see too.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::config::PromptStorage;
use crate::energy::EnergyFigure;
use crate::energy::grid::emissions::CarbonFigure;
use crate::openai::{Message, Usage};
use crate::routing::{
    EvaluatedCandidate, Features, PolicyOverrides, Route, Rule, SessionId, Signals,
};
use crate::units::{Dollars, Joules};

/// Version of the record; raised when a field changes its meaning. 2: costs of a candidate include
/// what its cache saves.
pub const RECORD_VERSION: u32 = 2;
/// The oldest readable version; fields that it lacks take their defaults.
pub const OLDEST_VERSION: u32 = 1;

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    /// Arrival, milliseconds since the Unix epoch.
    pub unix_ms: u64,
    #[serde(flatten)]
    pub receipt: Receipt,
    pub outcome: Outcome,
    /// HTTP status sent to the client.
    pub status: u16,
    pub features: Features,
    /// The rule that decided, so that replay can apply it again.
    pub rule: Rule,
    /// The request's own overrides of its policy.
    #[serde(default, rename = "wishes", skip_serializing_if = "PolicyOverrides::is_empty")]
    pub overrides: PolicyOverrides,
    /// Probability with which the rule made this choice, above 0 to 1; 1 without exploration.
    #[serde(default = "certain")]
    pub propensity: f64,
    /// The conversation, as a hash with a key known to the running gateway only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    pub timings: Timings,
    /// Token counts of the answer, if the backend reported them.
    pub usage: Option<Usage>,
    /// Price of all attempts; absent if a price is not configured.
    pub dollars: Option<Dollars>,
    /// Decision of a candidate router, which was not followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
    /// Quality of the answer, 0 to 1, once there is a verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<f64>,
    /// The prompt, as far as the operator stores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Prompt>,
}

impl Record {
    /// Memory that it holds, about: its own, what every record has besides, and a stored prompt.
    pub fn memory_bytes(&self) -> usize {
        let prompt = self.prompt.as_ref().map_or(0, Prompt::memory_bytes);
        let attempts = self.receipt.attempts.len() * size_of::<Attempt>();
        let candidates = self.receipt.candidates.len() * size_of::<EvaluatedCandidate>();
        size_of::<Self>() + attempts + candidates + self.receipt.reason.len() + prompt
    }
}

fn certain() -> f64 {
    1.0
}

/// The decision of a router that is evaluated but not followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shadow {
    /// `None` if no model could answer.
    pub model: Option<Arc<str>>,
    /// Adequacy of each model as predicted by that router, 0 to 1.
    pub p: BTreeMap<Arc<str>, f64>,
}

/// A stored prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// Hexadecimal SHA-256 of the messages as JSON.
    Sha256(String),
    Messages(Vec<Message>),
}

impl Prompt {
    pub fn of(messages: &[Message], storage: PromptStorage) -> Option<Self> {
        match storage {
            PromptStorage::Off => None,
            PromptStorage::Full => Some(Self::Messages(messages.to_vec())),
            PromptStorage::Hash => {
                let json = serde_json::to_vec(messages).ok()?;
                let digest = Sha256::digest(json);
                Some(Self::Sha256(format!("{:x}", Bytes::copy_from_slice(&digest))))
            }
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Self::Sha256(digest) => digest.len(),
            Self::Messages(messages) => messages.iter().map(Message::memory_bytes).sum(),
        }
    }
}

/// The receipt of a request: the `wattgate` object of the body, of the last stream chunk, of `GET
/// /v1/requests/{id}` and of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    pub request_id: Arc<str>,
    pub policy: Arc<str>,
    /// Route of the answering model; absent without an answer.
    pub route: Option<Route>,
    pub model: Option<Arc<str>>,
    pub reason: Arc<str>,
    pub candidates: Arc<[EvaluatedCandidate]>,
    pub attempts: Vec<Attempt>,
    /// Sum over the attempts.
    pub energy: Option<EnergyFigure>,
    /// Emissions of that energy; absent if no grid is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carbon: Option<CarbonFigure>,
    /// Cost of the operator's own electricity; absent without a tariff, or if the energy is
    /// unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub electricity_dollars: Option<Dollars>,
}

/// One attempt of a model to answer the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    pub model: Arc<str>,
    pub route: Route,
    /// Which deployment of the model; absent where it has only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Arc<str>>,
    /// Zone of the deployment's grid, where the operator named one. Not logged: its carbon is.
    #[serde(skip)]
    pub carbon_zone: Option<Arc<str>>,
    pub outcome: AttemptOutcome,
    /// Fixed word for the failure, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Number of oldest turns left out to fit the context; absent if the conversation was read
    /// whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_turns: Option<u32>,
    /// Signals of the first tokens of a local answer; absent without token probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signals: Option<Signals>,
    /// Probability, 0 to 1, of a good enough answer by these signals; absent if it was not
    /// computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// Absent if the attempt was rejected before any work.
    #[serde(flatten)]
    pub energy: Option<EnergyFigure>,
    /// The same with the attempt's share of the idle energy while it ran, once settled; absent if
    /// that is not metered here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amortised_joules: Option<Joules>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// Still running: only in receipts that are sent while the answer streams.
    Running,
    Answered,
    Failed,
    /// Its first tokens were not confident, so another model was asked.
    Escalated,
    /// The client disconnected.
    Cancelled,
}

/// How the request ended for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Answered,
    /// An error, before or within the answer.
    Failed,
    /// The client disconnected first.
    Cancelled,
    /// No attempt was made: no candidate could answer.
    Refused,
}

impl Outcome {
    pub fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
        }
    }
}

impl AttemptOutcome {
    pub fn label(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Escalated => "escalated",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Durations, milliseconds since arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Until the decision.
    pub decision_ms: f64,
    /// Until the first output of the answering model; absent without output.
    pub first_token_ms: Option<f64>,
    pub total_ms: f64,
}
