//! The response object as OpenAI writes it. Pure.

use serde::Serialize;
use serde_json::Value;

use super::echo::Echo;
use crate::openai::{FinishReason, Usage};

#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "OpenAI's names")]
pub(super) struct Object<'a> {
    pub(super) id: &'a str,
    object: &'static str,
    /// Seconds since the Unix epoch, like the next.
    created_at: u64,
    completed_at: Option<u64>,
    status: &'static str,
    background: bool,
    error: Option<Failure<'a>>,
    incomplete_details: Option<Incomplete>,
    model: &'a str,
    output: Vec<Value>,
    usage: Option<TokenCounts>,
    #[serde(flatten)]
    echo: &'a Echo,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Failure<'a> {
    pub(super) code: &'a str,
    pub(super) message: &'a str,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Incomplete {
    reason: &'static str,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct TokenCounts {
    input_tokens: u64,
    input_tokens_details: InputDetails,
    output_tokens: u64,
    output_tokens_details: OutputDetails,
    total_tokens: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct InputDetails {
    cached_tokens: u64,
    /// Chat does not tell, and the clients' types demand a number.
    cache_write_tokens: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct OutputDetails {
    reasoning_tokens: u64,
}

impl From<Usage> for TokenCounts {
    fn from(usage: Usage) -> Self {
        let output_tokens = usage.generated_tokens();
        Self {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputDetails {
                cached_tokens: usage.cached_tokens(),
                cache_write_tokens: 0,
            },
            output_tokens,
            output_tokens_details: OutputDetails { reasoning_tokens: usage.reasoning_tokens() },
            total_tokens: usage.prompt_tokens + output_tokens,
        }
    }
}

/// How an answer ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End<'a> {
    Finished(FinishReason),
    Failed(Failure<'a>),
}

/// Why an answer that ended so is incomplete.
pub(super) fn cut_by(finish: FinishReason) -> Option<&'static str> {
    match finish {
        FinishReason::Length => Some("max_output_tokens"),
        FinishReason::ContentFilter => Some("content_filter"),
        _ => None,
    }
}

impl<'a> Object<'a> {
    /// An answer that begins.
    pub(super) fn begun(id: &'a str, created_at: u64, model: &'a str, echo: &'a Echo) -> Self {
        Self {
            id,
            object: "response",
            created_at,
            completed_at: None,
            status: "in_progress",
            background: false,
            error: None,
            incomplete_details: None,
            model,
            output: vec![],
            usage: None,
            echo,
        }
    }

    pub(super) fn ended(
        self,
        end: End<'a>,
        now: u64,
        output: Vec<Value>,
        usage: Option<Usage>,
    ) -> Self {
        let usage = usage.map(TokenCounts::from);
        match end {
            End::Failed(failure) => {
                Self { status: "failed", error: Some(failure), output, usage, ..self }
            }
            End::Finished(finish) => match cut_by(finish) {
                Some(reason) => {
                    let incomplete_details = Some(Incomplete { reason });
                    Self { status: "incomplete", incomplete_details, output, usage, ..self }
                }
                None => {
                    Self { status: "completed", completed_at: Some(now), output, usage, ..self }
                }
            },
        }
    }

    pub(super) fn status(&self) -> &'static str {
        self.status
    }
}
