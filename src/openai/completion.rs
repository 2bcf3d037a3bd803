//! Completions of raw prompts (`POST /v1/completions`): OpenAI's older API, needed by models
//! without a chat template.
//!
//! As with chat, the request lists the fields that Wattgate reads; the rest stays in the original
//! bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::chat::{FinishReason, StreamOptions};
use super::constraint::{ResponseFormat, StructuredOutputs};
use super::content::Stop;
use super::input::Inputs;
use super::lenient::{self, Given};
use super::stream::ChunkUsage;

/// Output limit in tokens of a request that sets none: OpenAI's documented default.
pub const DEFAULT_MAX_TOKENS: u32 = 16;

/// Body of `POST /v1/completions`, as far as Wattgate reads it.
#[derive(Debug, Deserialize)]
pub struct CompletionRequest {
    /// `auto`, `auto/<policy>` or a model's own name.
    pub model: String,
    /// Text to continue; each of several prompts gets its own choices. One empty text if absent: a
    /// document from its beginning.
    #[serde(default)]
    pub prompt: Inputs,
    #[serde(default)]
    pub stream: Option<bool>,
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    /// [`DEFAULT_MAX_TOKENS`] if absent; 0 with `echo` gives the prompt back, −1 is no limit.
    #[serde(default, deserialize_with = "lenient::limit_or_unlimited")]
    pub max_tokens: Option<u32>,
    /// 0 (greedy) to 2.
    #[serde(default)]
    pub temperature: Option<f32>,
    /// Share of probability mass to sample from, 0 to 1.
    #[serde(default)]
    pub top_p: Option<f32>,
    #[serde(default, deserialize_with = "lenient::seed")]
    pub seed: Option<i64>,
    #[serde(default)]
    pub stop: Option<Stop>,
    /// Whether the prompt is repeated before its completion.
    #[serde(default)]
    pub echo: Option<bool>,
    /// Text that follows the completion.
    #[serde(default)]
    pub suffix: Option<String>,
    /// Number of most probable tokens to sample from; 0 or −1: all. An extension, not in OpenAI's
    /// API.
    #[serde(default, deserialize_with = "lenient::whole")]
    pub top_k: Option<i32>,
    /// Least probability of a token relative to the most probable one, 0 to 1. An extension.
    #[serde(default)]
    pub min_p: Option<f32>,
    /// −2 to 2.
    #[serde(default)]
    pub frequency_penalty: Option<f32>,
    /// −2 to 2.
    #[serde(default)]
    pub presence_penalty: Option<f32>,
    /// Above 0, up to 10; 1 has no effect. An extension, under the name of llama-server and Ollama.
    #[serde(default)]
    pub repeat_penalty: Option<f32>,
    /// The same under vLLM's name; `repeat_penalty` goes first.
    #[serde(default)]
    pub repetition_penalty: Option<f32>,
    /// Token id to logit offset, −100 to 100.
    #[serde(default, deserialize_with = "lenient::biases")]
    pub logit_bias: Option<BTreeMap<u32, f32>>,
    /// Continue past the end-of-text token, up to the output limit. An extension.
    #[serde(default)]
    pub ignore_eos: Option<bool>,
    /// Choices per prompt, 1 to 128.
    #[serde(default, deserialize_with = "lenient::whole")]
    pub n: Option<u32>,
    /// Candidates per prompt, of which the best `n` are returned; at least `n`.
    #[serde(default, deserialize_with = "lenient::whole")]
    pub best_of: Option<u32>,
    /// Number of alternatives reported per token, 0 to 5.
    #[serde(default, deserialize_with = "lenient::whole")]
    pub logprobs: Option<u32>,
    /// As for conversations.
    #[serde(default)]
    pub response_format: Option<ResponseFormat>,
    // Constraints and limits under the names of llama-server and vLLM.
    /// llama-server's: the JSON schema of the answer.
    #[serde(default)]
    pub json_schema: Option<Box<RawValue>>,
    /// vLLM's: the JSON schema of the answer, or its text.
    #[serde(default)]
    pub guided_json: Option<Box<RawValue>>,
    #[serde(default)]
    pub guided_regex: Option<String>,
    /// vLLM's: the answers to choose from.
    #[serde(default)]
    pub guided_choice: Option<Vec<String>>,
    #[serde(default)]
    pub structured_outputs: Option<StructuredOutputs>,
    /// vLLM's: the answer does not end before this many tokens.
    #[serde(default, deserialize_with = "lenient::whole")]
    pub min_tokens: Option<u32>,
    /// llama-server's name of the output limit; −1: no limit.
    #[serde(default, deserialize_with = "lenient::whole")]
    pub n_predict: Option<i64>,
    /// Wattgate's own options; read by the edge.
    #[serde(default)]
    pub wattgate: Option<Box<RawValue>>,
    /// Names the end user. Of any type: only some upstreams care.
    #[serde(default)]
    pub user: Option<Value>,
    #[serde(default)]
    pub metadata: Option<Box<RawValue>>,
    /// A form of the answer in a grammar of llama-server's or vLLM's.
    #[serde(default)]
    pub grammar: Given,
    #[serde(default)]
    pub guided_grammar: Given,
    /// Tokens and words that begin, end or never enter an answer: vLLM's.
    #[serde(default)]
    pub stop_token_ids: Given,
    #[serde(default)]
    pub allowed_token_ids: Given,
    #[serde(default)]
    pub bad_words: Given,
    /// Log-probabilities of the prompt's tokens.
    #[serde(default)]
    pub prompt_logprobs: Given,
}

impl CompletionRequest {
    pub fn output_limit(&self) -> u32 {
        let by_predict = || self.n_predict.and_then(|most| u32::try_from(most).ok());
        self.max_tokens.or_else(by_predict).unwrap_or(DEFAULT_MAX_TOKENS)
    }

    /// Choices per prompt, at least 1.
    pub fn choices(&self) -> u32 {
        self.n.unwrap_or(1).max(1)
    }

    pub fn has_suffix(&self) -> bool {
        self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty())
    }

    /// Whether more candidates are generated than returned.
    pub fn ranks_candidates(&self) -> bool {
        self.best_of.is_some_and(|candidates| candidates > self.choices())
    }

    /// Text to repeat before the completion of choice `index`; `None` without `echo`. Choices of
    /// one prompt have consecutive indices.
    pub fn echoed(&self, index: u32) -> Option<&str> {
        let prompt = self.prompt.0.get((index / self.choices()) as usize)?;
        if self.echo.unwrap_or(false) { prompt.text() } else { None }
    }
}

/// A non-streamed answer, or one `data:` line of a streamed one: both have this shape.
#[derive(Debug, Serialize)]
pub struct Completion<'a> {
    pub id: &'a str,
    /// Always `text_completion`.
    pub object: &'static str,
    /// Seconds since the Unix epoch.
    pub created: u64,
    pub model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<&'a str>,
    pub choices: Vec<CompletionChoice<'a>>,
    /// In a stream absent unless the client requested it; then `null` but in the last chunk.
    #[serde(skip_serializing_if = "ChunkUsage::is_unasked")]
    pub usage: ChunkUsage,
}

#[derive(Debug, Serialize)]
pub struct CompletionChoice<'a> {
    pub index: u32,
    pub text: &'a str,
    pub logprobs: Option<CompletionLogprobs>,
    pub finish_reason: Option<FinishReason>,
}

/// Log-probabilities in the older API's form: parallel lists, one entry per token.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct CompletionLogprobs {
    /// A token that is not valid UTF-8 is written as `bytes:` and its bytes in hexadecimal, `\xe2`.
    pub tokens: Vec<String>,
    pub token_logprobs: Vec<f32>,
    /// The most probable tokens, and the chosen one if it is not among them; absent unless
    /// requested.
    pub top_logprobs: Option<Vec<BTreeMap<String, f32>>>,
    /// Offset of the token in the choice's text, in characters.
    pub text_offset: Vec<usize>,
}
