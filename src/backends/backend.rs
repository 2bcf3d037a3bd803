//! The seam between the gateway and whatever answers: a job goes in, a stream of events comes out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use super::chunks::Chunks;
use super::terms::Terms;
use crate::energy::EnergyFigure;
use crate::openai::{FinishReason, Request, TokenLogprob, Usage};
use crate::units::AttemptId;

/// One attempt at answering one request.
#[derive(Clone, Debug)]
pub struct Job {
    pub attempt: AttemptId,
    pub request: Arc<Request>,
    /// The client's body, byte for byte, for backends that forward it.
    pub body: Bytes,
    /// What the client asks about the order of work; a backend that cannot know it ignores it.
    pub terms: Terms,
}

/// The answer as it comes. Dropping the stream cancels the work: a local slot is freed at its next step and an
/// upstream connection is closed.
pub type EventStream = BoxStream<'static, Result<Event, BackendError>>;

/// What a backend says while it answers. Order: `Started`, then output, then `Usage` and `Energy` (if known), then
/// `Done`. After `Done` or an error the stream ends.
#[derive(Debug)]
pub enum Event {
    /// The backend took the job. No output yet: the next candidate could still answer unnoticed.
    Started,
    /// Text of a local answer; never empty, always whole UTF-8.
    Text(String),
    /// As `Text`, of what the model thinks before it answers.
    Reasoning(String),
    /// The model begins to call a tool of the client's. Calls are numbered from 0; `id` is unique.
    ToolCall {
        index: u32,
        id: String,
        name: String,
    },
    /// More of a call's arguments, which are JSON text.
    ToolArguments {
        index: u32,
        piece: String,
    },
    /// How sure a local model was of its next tokens, up to a fixed number of them; comes before their text.
    Confidence(Vec<TokenConfidence>),
    /// Of the tokens of the text that follows next.
    Logprobs(Vec<TokenLogprob>),
    /// What follows belongs to the choice of this index; before the first of these, to choice 0.
    Choice(u32),
    /// The present choice has ended, others go on; the last one's end is `Done`.
    ChoiceDone(FinishReason),
    /// Chunks of a streamed answer, as an upstream wrote them.
    UpstreamChunks(Chunks),
    /// The whole answer, not streamed: the JSON object that an upstream wrote. UTF-8.
    UpstreamAnswer(Bytes),
    /// One vector of unit length for each input, in their order: the whole answer to a request for embeddings.
    Embeddings(Vec<Vec<f32>>),
    /// The oldest turns of the conversation were left out so that the rest fits.
    Truncated {
        turns: u32,
    },
    Usage(Usage),
    /// What an upstream says the answer took; local energy comes from the meter instead.
    Energy(EnergyFigure),
    Done(FinishReason),
}

/// How sure a model was of one token, by its own distribution before anything the client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenConfidence {
    /// Natural logarithm of the token's probability, −9999 to 0.
    pub logprob: f32,
    /// Entropy of the distribution, nats, at least 0.
    pub entropy: f32,
}

/// Something that can answer.
pub trait Backend: Send + Sync {
    /// Begins an answer. Never blocks and never fails at once: failures are the stream's first item.
    fn start(&self, job: Job) -> EventStream;

    /// What routing must know before it chooses this backend; cheap enough for every request.
    fn health(&self) -> Health;
}

/// Whether and how busily a backend can answer just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// It takes requests, even if it has to load first.
    pub ready: bool,
    /// Requests admitted and not finished.
    pub in_flight: u32,
    /// Requests it can work on at once; more wait.
    pub slots: u32,
    /// Longest prompt plus answer in tokens, if the backend knows.
    pub context_tokens: Option<u32>,
}

impl Health {
    /// Requests that wait for others to end.
    pub fn waiting(&self) -> u32 {
        self.in_flight.saturating_sub(self.slots)
    }
}

/// OpenAI's error code for a prompt that does not fit the model's context.
pub const CONTEXT_LENGTH_EXCEEDED: &str = "context_length_exceeded";

/// Our code for a tool of a kind that only some models know.
pub const UNSUPPORTED_TOOL: &str = "unsupported_tool";
/// Our code for an upstream that does not answer requests of this kind, though it may answer others.
pub const UNSUPPORTED_ENDPOINT: &str = "unsupported_endpoint";

/// Why an answer failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ErrorKind {
    /// Not running, not reachable, or still loading.
    #[error("the model is unavailable: {0}")]
    Unavailable(String),
    /// It was to be loaded for this request, and was not in time.
    #[error("the model was not loaded in time: {reason}")]
    NotLoaded { reason: &'static str, retry_after: Duration },
    /// Its queue is full.
    #[error("the model's queue is full: {ahead} requests are ahead of this one")]
    Overloaded { retry_after: Duration, ahead: u32 },
    /// The upstream's own rate limit (429).
    #[error("the upstream is rate limiting")]
    RateLimited { retry_after: Option<Duration> },
    /// The upstream refused the gateway's credentials (401, 403).
    #[error(
        "the upstream refused the gateway's credentials (HTTP {status}): check the model's api_key_env"
    )]
    Credentials { status: u16 },
    /// The request itself is at fault, in the backend's words.
    #[error("{message}")]
    InvalidRequest { message: String, param: Option<String>, code: Option<String> },
    /// Prompt and answer do not fit.
    #[error("the prompt has {prompt_tokens} tokens and the model's context holds {context_tokens}")]
    ContextExceeded { prompt_tokens: u32, context_tokens: u32 },
    #[error("no answer within {} ms", .after.as_millis())]
    Timeout { after: Duration },
    /// The client's own deadline came before the end of the answer.
    #[error("the deadline of the request has passed")]
    DeadlineExceeded,
    /// The upstream failed (5xx).
    #[error("the upstream failed with HTTP {status}")]
    UpstreamStatus { status: u16 },
    /// The upstream spoke, but not OpenAI's protocol.
    #[error("the upstream's answer was not understood: {0}")]
    Protocol(String),
    /// The engine process died while it worked.
    #[error("the model's engine process stopped")]
    EngineDied,
}

/// Who is at fault.
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
    /// A fixed word for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::NotLoaded { .. } => "not_loaded",
            Self::Overloaded { .. } => "overloaded",
            Self::RateLimited { .. } => "rate_limited",
            Self::Credentials { .. } => "credentials",
            Self::InvalidRequest { .. } => "invalid_request",
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
            Self::InvalidRequest { .. } | Self::ContextExceeded { .. } | Self::DeadlineExceeded => {
                ErrorSource::Client
            }
            Self::Credentials { .. } => ErrorSource::Us,
            _ => ErrorSource::Backend,
        }
    }

    /// Whether the attempt was turned away before any model worked on it, so that it used no energy.
    pub fn is_before_work(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_)
                | Self::NotLoaded { .. }
                | Self::Overloaded { .. }
                | Self::RateLimited { .. }
                | Self::Credentials { .. }
        )
    }

    /// Whether the same request may succeed at another model. Only a request that is wrong or late everywhere may not;
    /// one that is too long here, without telling by how much, or asks for what is unknown here may fit elsewhere.
    pub fn retry_elsewhere(&self) -> bool {
        match self {
            Self::InvalidRequest { code, .. } => {
                const ELSEWHERE: [&str; 3] =
                    [CONTEXT_LENGTH_EXCEEDED, UNSUPPORTED_ENDPOINT, UNSUPPORTED_TOOL];
                code.as_deref().is_some_and(|code| ELSEWHERE.contains(&code))
            }
            Self::DeadlineExceeded => false,
            _ => true,
        }
    }
}
