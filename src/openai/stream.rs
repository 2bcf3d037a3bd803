//! Chunks of a streamed chat completion of a local model.

use serde::Serialize;

use super::chat::{FinishReason, Role, Usage};
use super::logprobs::ChoiceLogprobs;
use super::tools::{FunctionCallDelta, ToolCallDelta};

/// One `data:` line of the stream.
#[derive(Debug, Serialize)]
pub struct ChatChunk<'a> {
    pub id: &'a str,
    /// Always `chat.completion.chunk`.
    pub object: &'static str,
    /// Seconds since the Unix epoch, the same in every chunk of an answer.
    pub created: u64,
    pub model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<&'a str>,
    pub choices: Vec<ChunkChoice<'a>>,
    /// Absent unless the client requested it; then `null` but in the last chunk.
    #[serde(skip_serializing_if = "ChunkUsage::is_unasked")]
    pub usage: ChunkUsage,
}

/// `usage` of one object of an answer.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub enum ChunkUsage {
    Unasked,
    /// Follows in the last chunk.
    Later,
    Counted(Usage),
}

impl ChunkUsage {
    pub fn is_unasked(&self) -> bool {
        matches!(self, Self::Unasked)
    }

    /// Of a chunk before the last one.
    pub fn before_end(wanted: bool) -> Self {
        if wanted { Self::Later } else { Self::Unasked }
    }
}

#[derive(Debug, Serialize)]
pub struct ChunkChoice<'a> {
    pub index: u32,
    pub delta: Delta<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<ChoiceLogprobs>,
    pub finish_reason: Option<FinishReason>,
}

/// Addition of one chunk to the answer.
#[derive(Debug, Default, Serialize)]
pub struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<&'a str>,
    /// At most one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCallDelta<'a>>,
    /// Instead of tool calls, for clients that offered `functions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_call: Option<FunctionCallDelta<'a>>,
}

impl<'a> Delta<'a> {
    /// A chunk that only adds to a call.
    pub fn call(call: ToolCallDelta<'a>) -> Self {
        Self { tool_calls: vec![call], ..Self::default() }
    }
}
