//! One request as the log keeps it, and the receipt within it that clients see too.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::config::PromptStorage;
use crate::energy::EnergyFigure;
use crate::energy::grid::emissions::CarbonFigure;
use crate::openai::{Message, Usage};
use crate::routing::{Features, Judged, PolicyOverrides, Route, Rule, SessionId, Signals};
use crate::units::{Dollars, Joules};

/// Version of the row; raised when a field changes its meaning. 2: costs of a candidate count what
/// its cache holds.
pub const RECORD_VERSION: u32 = 2;
/// The oldest version that can be read: what it lacks is then as it was.
pub const OLDEST_VERSION: u32 = 1;

/// One row of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    /// Arrival, milliseconds since the Unix epoch.
    pub unix_ms: u64,
    #[serde(flatten)]
    pub receipt: Receipt,
    pub outcome: Outcome,
    /// HTTP status the client saw.
    pub status: u16,
    pub features: Features,
    /// The rule that decided, so that replay can apply it again.
    pub rule: Rule,
    /// What the request itself asked of its policy.
    #[serde(default, skip_serializing_if = "PolicyOverrides::is_empty")]
    pub wishes: PolicyOverrides,
    /// Probability with which the rule chose as it did, above 0 to 1; 1 where nothing is left to
    /// chance.
    #[serde(default = "certain")]
    pub propensity: f64,
    /// The conversation, as a hash with a key that only the running gateway has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    pub timings: Timings,
    /// Token counts of the answer, if the backend told them.
    pub usage: Option<Usage>,
    /// Price of all attempts; absent when a price is not configured.
    pub dollars: Option<Dollars>,
    /// What a candidate router would have chosen; it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
    /// Quality of the answer afterwards, 0 to 1, once somebody judged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<f64>,
    /// What the operator keeps of the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Prompt>,
}

fn certain() -> f64 {
    1.0
}

/// The decision of a router that only watches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shadow {
    /// None if no model could answer.
    pub model: Option<Arc<str>>,
    /// Adequacy of each model as it predicts it.
    pub p: BTreeMap<Arc<str>, f64>,
}

/// A prompt as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// Hex SHA-256 of the messages as JSON.
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
}

/// What a client is told about its request: the `wattgate` object of the body, of the last stream
/// chunk, of `GET /v1/requests/{id}` and of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    pub request_id: Arc<str>,
    pub policy: Arc<str>,
    /// Where the answer came from; absent when there was none.
    pub route: Option<Route>,
    pub model: Option<Arc<str>>,
    pub reason: String,
    pub candidates: Vec<Judged>,
    pub attempts: Vec<Attempt>,
    /// Sum over the attempts.
    pub energy: Option<EnergyFigure>,
    /// What that energy causes by the grids it comes from; absent where none is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carbon: Option<CarbonFigure>,
    /// What the operator's own electricity for it costs; absent without a price, or where the
    /// energy is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub electricity_dollars: Option<Dollars>,
}

/// One model's try at the request.
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
    /// How many of the oldest turns were left out so that the conversation fits; absent when it was
    /// read whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_turns: Option<u32>,
    /// What the first tokens of a local answer told; absent where no token's probability is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signals: Option<Signals>,
    /// Probability of a good enough answer by these signals, 0 to 1; absent when nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// Absent when nothing ran: refused before any work.
    #[serde(flatten)]
    pub energy: Option<EnergyFigure>,
    /// The same with the attempt's share of the idle energy while it was open, once settled; absent
    /// where that is not metered here.
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
    /// Its first tokens did not look sure, so that another model was asked.
    Escalated,
    /// The client left.
    Cancelled,
}

/// How the request ended for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Answered,
    /// An error, before or within the answer.
    Failed,
    /// The client left first.
    Cancelled,
    /// Nothing was tried: no candidate could answer.
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

/// How long things took, milliseconds since arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Until the decision stood.
    pub decision_ms: f64,
    /// Until the first output of the model that answered; absent when nothing came.
    pub first_token_ms: Option<f64>,
    pub total_ms: f64,
}
