//! OpenAI's error envelope, the wire format of every failure.

use serde::{Deserialize, Serialize};

/// Our code for a kind of tool that only some models support.
pub const UNSUPPORTED_TOOL: &str = "unsupported_tool";

/// `{"error": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorEnvelope {
    pub error: ErrorBody,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// A sentence for people: what happened and, if possible, what to do next.
    pub message: String,
    /// OpenAI's coarse class, such as `invalid_request_error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The request field at fault, if any.
    #[serde(default)]
    pub param: Option<String>,
    /// A stable word for programs, such as `context_length_exceeded`.
    #[serde(default)]
    pub code: Option<String>,
    /// Tokens of a prompt that is too long, under llama-server's name, like the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_prompt_tokens: Option<u32>,
    /// Tokens that the context holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_ctx: Option<u32>,
}
