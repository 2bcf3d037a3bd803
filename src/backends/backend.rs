//! Interface between the gateway and backends: a job in, a stream of events out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use super::chunks::Chunks;
use super::scheduling_options::SchedulingOptions;
use crate::energy::EnergyFigure;
use crate::openai::{FinishReason, Request, TokenLogprob, Usage};
use crate::units::AttemptId;

/// One attempt at a request.
#[derive(Clone, Debug)]
pub struct Job {
    pub attempt: AttemptId,
    pub request: Arc<Request>,
    /// The client's body, verbatim, for backends that forward it.
    pub body: Bytes,
    /// The client's scheduling options; backends that cannot apply them ignore them.
    pub terms: SchedulingOptions,
}

/// The events of an answer. Dropping the stream cancels the attempt: a local slot is freed at its
/// next step, an upstream connection is closed.
pub type EventStream = BoxStream<'static, Result<Event, BackendError>>;

/// An event of an answer. Order: `Started`, output, `Usage` and `Energy` (if known), `Done`. The
/// stream ends after `Done` or an error.
#[derive(Debug)]
pub enum Event {
    /// The backend accepted the job. No output yet, so another candidate could still answer.
    Started,
    /// Text of a local answer; never empty, always complete UTF-8.
    Text(String),
    /// As `Text`, for reasoning.
    Reasoning(String),
    /// Start of a tool call. Calls are numbered from 0; `id` is unique.
    ToolCall {
        index: u32,
        id: String,
        name: String,
    },
    /// More of a call's arguments, as JSON text.
    ToolArguments {
        index: u32,
        piece: String,
    },
    /// A local model's confidence in its next tokens, up to a fixed number of them; precedes their
    /// text.
    Confidence(Vec<TokenConfidence>),
    /// Log-probabilities of the tokens of the text that follows next.
    Logprobs(Vec<TokenLogprob>),
    /// Later events belong to this choice; choice 0 before the first of these.
    Choice(u32),
    /// The current choice has ended, others continue; the last one ends with `Done`.
    ChoiceDone(FinishReason),
    /// Chunks of a streamed answer, verbatim from an upstream.
    UpstreamChunks(Chunks),
    /// The whole answer, not streamed: the JSON object that an upstream wrote. UTF-8.
    UpstreamAnswer(Bytes),
    /// One vector of unit length for each input, in order: the whole answer to a request for
    /// embeddings.
    Embeddings(Vec<Vec<f32>>),
    /// The oldest turns of the conversation were dropped so that the rest fits.
    Truncated {
        turns: u32,
    },
    Usage(Usage),
    /// Energy reported by an upstream; the meter measures local energy.
    Energy(EnergyFigure),
    Done(FinishReason),
}

/// A model's confidence in one token, by its own distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenConfidence {
    /// Natural logarithm of the token's probability, −9999 to 0.
    pub logprob: f32,
    /// Entropy of the distribution, nats, at least 0.
    pub entropy: f32,
}

/// A source of answers: a local model or an upstream.
pub trait Backend: Send + Sync {
    /// Starts an answer. Never blocks; a failure is the first item of the stream.
    fn start(&self, job: Job) -> EventStream;

    /// State for routing; cheap enough for every request.
    fn health(&self) -> Health;
}

/// Readiness and load of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Accepts requests, possibly after a load.
    pub ready: bool,
    /// When it may accept requests again, where that is known; `None` while it does.
    pub ready_in: Option<Duration>,
    /// Requests admitted and not finished.
    pub in_flight: u32,
    /// Requests it processes at the same time; more wait.
    pub slots: u32,
    /// Maximum tokens of prompt plus answer, if known.
    pub context_tokens: Option<u32>,
}

impl Health {
    /// Requests that are queued.
    pub fn waiting(&self) -> u32 {
        self.in_flight.saturating_sub(self.slots)
    }
}

/// OpenAI's error code for a prompt that exceeds the model's context.
pub const CONTEXT_LENGTH_EXCEEDED: &str = "context_length_exceeded";

pub use crate::openai::error::UNSUPPORTED_TOOL;
/// Our error code for an upstream without this endpoint.
pub const UNSUPPORTED_ENDPOINT: &str = "unsupported_endpoint";

/// A request that a backend does not answer, in the backend's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFault {
    /// HTTP status of the reply, 400 unless another one says more: 403, 413.
    pub status: u16,
    /// May quote the request.
    pub message: String,
    /// The field at fault.
    pub param: Option<String>,
    pub code: Option<String>,
}

impl RequestFault {
    pub fn new(message: impl Into<String>, param: Option<&str>, code: Option<&str>) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self { status: 400, message: message.into(), param: owned(param), code: owned(code) }
    }

    /// The failure of a request that no model can answer.
    pub fn of_request(self) -> ErrorKind {
        ErrorKind::InvalidRequest(Box::new(self))
    }

    /// The failure of a request that another model may answer.
    pub fn of_model(self) -> ErrorKind {
        ErrorKind::Unsupported(Box::new(self))
    }
}

/// The reason why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ErrorKind {
    /// Not running, not reachable, or loading.
    #[error("the model is unavailable: {0}")]
    Unavailable(String),
    /// Not loaded in time for this request.
    #[error("the model was not loaded in time: {reason}")]
    NotLoaded { reason: &'static str, retry_after: Duration },
    /// The queue is full.
    #[error("the model's queue is full: {ahead} requests are ahead of this one")]
    Overloaded { retry_after: Duration, ahead: u32 },
    /// The client holds its share of the model's places.
    #[error(
        "this client holds its share of the model's places; the rest is kept for other clients"
    )]
    ClientShare { retry_after: Duration },
    /// The upstream's own rate limit (429), with its reason if it gave one.
    #[error("the upstream is rate limiting{}", suffix(.reason.as_deref()))]
    RateLimited { retry_after: Option<Duration>, reason: Option<String> },
    /// The upstream refused the gateway's credentials (401, 403).
    #[error(
        "the upstream refused the gateway's credentials (HTTP {status}): check the model's api_key_env"
    )]
    Credentials { status: u16 },
    /// The request is invalid for every model.
    #[error("{}", .0.message)]
    InvalidRequest(Box<RequestFault>),
    /// This model, or this server, does not do what the request asks for; another one may.
    #[error("{}", .0.message)]
    Unsupported(Box<RequestFault>),
    /// The prompt exceeds the context.
    #[error("{}", context_exceeded(prompt_tokens, *.context_tokens))]
    ContextExceeded { prompt_tokens: u32, context_tokens: u32 },
    #[error("no answer within {} ms", .after.as_millis())]
    Timeout { after: Duration },
    /// The client's deadline passed before the end of the answer.
    #[error("the deadline of the request has passed")]
    DeadlineExceeded,
    /// The upstream failed (5xx), with its reason if it gave one.
    #[error("the upstream failed with HTTP {status}{}", suffix(.reason.as_deref()))]
    UpstreamStatus { status: u16, retry_after: Option<Duration>, reason: Option<String> },
    /// The upstream's response is not OpenAI's protocol.
    #[error("the upstream's answer was not understood: {0}")]
    Protocol(String),
    /// The engine process ended during the attempt.
    #[error("the model's engine process stopped")]
    EngineDied,
}

/// The party that causes an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorSource {
    Client,
    Backend,
    Us,
}

/// A failure of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{model}: {kind}")]
pub struct BackendError {
    /// Name of the model in the config.
    pub model: Arc<str>,
    pub kind: ErrorKind,
}

impl ErrorKind {
    /// A fixed label for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::NotLoaded { .. } => "not_loaded",
            Self::Overloaded { .. } => "overloaded",
            Self::ClientShare { .. } => "client_share",
            Self::RateLimited { .. } => "rate_limited",
            Self::Credentials { .. } => "credentials",
            Self::InvalidRequest(_) => "invalid_request",
            Self::Unsupported(_) => "unsupported",
            Self::ContextExceeded { .. } => "context_exceeded",
            Self::Timeout { .. } => "timeout",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::UpstreamStatus { .. } => "upstream_status",
            Self::Protocol(_) => "protocol",
            Self::EngineDied => "engine_died",
        }
    }

    pub fn source(&self) -> ErrorSource {
        match self {
            Self::InvalidRequest(_)
            | Self::Unsupported(_)
            | Self::ContextExceeded { .. }
            | Self::DeadlineExceeded => ErrorSource::Client,
            Self::Credentials { .. } => ErrorSource::Us,
            _ => ErrorSource::Backend,
        }
    }

    /// Whether the attempt failed before any model worked on it, so that it used no energy.
    pub fn is_before_work(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_)
                | Self::NotLoaded { .. }
                | Self::Overloaded { .. }
                | Self::ClientShare { .. }
                | Self::RateLimited { .. }
                | Self::Credentials { .. }
        )
    }

    /// How long to wait before the model is asked again, where the backend said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NotLoaded { retry_after, .. }
            | Self::Overloaded { retry_after, .. }
            | Self::ClientShare { retry_after } => Some(*retry_after),
            Self::RateLimited { retry_after, .. } | Self::UpstreamStatus { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }

    /// Whether the next candidate could answer the request. False for one that is invalid or late
    /// everywhere.
    pub fn another_could_answer(&self) -> bool {
        !matches!(self, Self::InvalidRequest(_) | Self::DeadlineExceeded)
    }
}

/// The message about a prompt of `prompt_tokens`, in the words by which clients recognise it and
/// shorten the conversation or ask a model with a longer context.
pub fn context_exceeded(prompt_tokens: &impl fmt::Display, context_tokens: u32) -> String {
    format!(
        "This model's maximum context length is {context_tokens} tokens. However, your prompt has \
         {prompt_tokens} tokens: the prompt is too long and exceeds the context window."
    )
}

fn suffix(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}
