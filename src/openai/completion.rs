//! Completions of raw prompts (`POST /v1/completions`), OpenAI's older API, which models without a chat template need.
//!
//! As with chat, the request lists what Wattgate reads; the rest stays in the original bytes.

use serde::{Deserialize, Serialize};

use super::chat::{FinishReason, StreamOptions, Usage};
use super::content::Stop;
use super::input::Inputs;

/// Output limit in tokens of a request that sets none: OpenAI's documented default.
pub const DEFAULT_MAX_TOKENS: u32 = 16;

/// The body of `POST /v1/completions`, as far as Wattgate reads it.
#[derive(Debug, Deserialize)]
pub struct CompletionRequest {
    /// `auto`, `auto/<policy>` or a model's own name.
    pub model: String,
    /// What to continue; each of several prompts gets its own choice.
    pub prompt: Inputs,
    #[serde(default)]
    pub stream: Option<bool>,
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    /// [`DEFAULT_MAX_TOKENS`] if absent.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// 0 (greedy) to 2.
    #[serde(default)]
    pub temperature: Option<f32>,
    /// Share of probability mass to sample from, 0 to 1.
    #[serde(default)]
    pub top_p: Option<f32>,
    #[serde(default)]
    pub seed: Option<i64>,
    #[serde(default)]
    pub stop: Option<Stop>,
    /// Repeats the prompt before its completion.
    #[serde(default)]
    pub echo: Option<bool>,
    /// Text that is to follow the completion.
    #[serde(default)]
    pub suffix: Option<String>,
    /// Choices of each prompt.
    #[serde(default)]
    pub n: Option<u32>,
    /// Candidates of which the best are given.
    #[serde(default)]
    pub best_of: Option<u32>,
    /// How many log-probabilities to give with each token.
    #[serde(default)]
    pub logprobs: Option<u32>,
}

impl CompletionRequest {
    pub fn output_limit(&self) -> u32 {
        self.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS)
    }

    /// What stands before the completion of prompt `choice` when the client wants it repeated.
    pub fn echoed(&self, choice: u32) -> Option<&str> {
        let prompt = self.prompt.0.get(choice as usize)?;
        if self.echo.unwrap_or(false) { prompt.text() } else { None }
    }
}

/// A whole answer, or one `data:` line of a streamed one: both have this shape.
#[derive(Debug, Serialize)]
pub struct Completion<'a> {
    pub id: &'a str,
    /// Always `text_completion`.
    pub object: &'static str,
    /// Seconds since the Unix epoch.
    pub created: u64,
    pub model: &'a str,
    pub choices: Vec<CompletionChoice<'a>>,
    /// In a stream set in the last chunk only, when the client asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

#[derive(Debug, Serialize)]
pub struct CompletionChoice<'a> {
    pub index: u32,
    pub text: &'a str,
    pub logprobs: Option<()>,
    pub finish_reason: Option<FinishReason>,
}
