//! What routing knows of a request without running it: its structure, never its text.
//!
//! Small and harmless enough to be logged with every request, so that replay can decide again.

use serde::{Deserialize, Serialize};

use crate::openai::ChatRequest;

/// Bytes of English text per token, the usual rule of thumb for byte-pair vocabularies; only used until the
/// chosen engine has counted exactly.
const BYTES_PER_TOKEN: usize = 4;

/// Tokens a chat template spends on each turn (role markers and separators).
const TOKENS_PER_TURN: usize = 4;

/// Output length assumed when the client sets no limit.
const TYPICAL_OUTPUT_TOKENS: u32 = 256;

/// Structure of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// Estimated prompt tokens, template included.
    pub prompt_tokens: u32,
    /// The client's output limit, or a typical length if that is smaller.
    pub output_tokens: u32,
    pub turns: u32,
    pub has_tools: bool,
    /// `response_format` asks for JSON.
    pub has_schema: bool,
    /// Images, audio or files among the message parts.
    pub has_media: bool,
    pub wants_logprobs: bool,
    /// More than one choice asked for.
    pub wants_choices: bool,
}

impl Features {
    pub fn of(request: &ChatRequest) -> Self {
        let bytes: usize = request
            .messages
            .iter()
            .filter_map(|m| m.content.as_ref())
            .map(|c| c.text().len())
            .sum();
        let turns = request.messages.len();
        let prompt_tokens = bytes.div_ceil(BYTES_PER_TOKEN) + turns * TOKENS_PER_TURN;
        Self {
            prompt_tokens: u32::try_from(prompt_tokens).unwrap_or(u32::MAX),
            output_tokens: request
                .output_limit()
                .map_or(TYPICAL_OUTPUT_TOKENS, |limit| limit.min(TYPICAL_OUTPUT_TOKENS)),
            turns: u32::try_from(turns).unwrap_or(u32::MAX),
            has_tools: request.tools.as_ref().is_some_and(|tools| !tools.is_empty()),
            has_schema: request
                .response_format
                .as_ref()
                .is_some_and(|format| format.kind != "text"),
            has_media: request
                .messages
                .iter()
                .filter_map(|m| m.content.as_ref())
                .any(super::super::openai::Content::has_media),
            wants_logprobs: request.logprobs.unwrap_or(false),
            wants_choices: request.n.unwrap_or(1) > 1,
        }
    }
}
