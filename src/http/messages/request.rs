//! The body of `POST /v1/messages`, as far as it is read.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::blocks::Blocks;
use crate::openai::lenient::{self, Given};

#[derive(Debug, Deserialize)]
pub struct MessagesRequest {
    pub model: String,
    pub messages: Vec<MessageIn>,
    #[serde(default)]
    pub system: Option<Blocks>,
    /// Anthropic demands it; the models here have limits of their own.
    #[serde(default, deserialize_with = "lenient::whole")]
    pub max_tokens: Option<u32>,
    #[serde(default)]
    pub stop_sequences: Option<Vec<String>>,
    #[serde(default)]
    pub stream: Option<bool>,
    #[serde(default)]
    pub temperature: Option<f32>,
    #[serde(default)]
    pub top_p: Option<f32>,
    #[serde(default, deserialize_with = "lenient::whole")]
    pub top_k: Option<i32>,
    #[serde(default)]
    pub tools: Option<Vec<ToolIn>>,
    #[serde(default)]
    pub tool_choice: Option<ChoiceIn>,
    #[serde(default)]
    pub thinking: Option<ThinkingIn>,
    #[serde(default)]
    pub output_config: Option<OutputConfig>,
    /// Older name of `output_config.format`.
    #[serde(default)]
    pub output_format: Option<FormatIn>,
    #[serde(default)]
    pub metadata: Option<MetadataIn>,
    /// Wattgate's own options.
    #[serde(default)]
    pub wattgate: Option<Box<RawValue>>,
    /// Services of Anthropic's own.
    #[serde(default)]
    pub mcp_servers: Given,
    #[serde(default)]
    pub container: Given,
}

#[derive(Debug, Deserialize)]
pub struct MessageIn {
    pub role: RoleIn,
    pub content: Blocks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleIn {
    User,
    Assistant,
    /// Between the turns: a beta.
    System,
}

#[derive(Debug, Deserialize)]
pub struct ToolIn {
    /// `custom` if absent: others are Anthropic's own.
    #[serde(rename = "type", default)]
    pub kind: Option<String>,
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub input_schema: Option<Box<RawValue>>,
    #[serde(default)]
    pub strict: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub struct ChoiceIn {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub disable_parallel_tool_use: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub struct ThinkingIn {
    /// `enabled`, `adaptive` or `disabled`.
    #[serde(rename = "type")]
    pub kind: String,
}

#[derive(Debug, Deserialize)]
pub struct OutputConfig {
    #[serde(default)]
    pub format: Option<FormatIn>,
}

#[derive(Debug, Deserialize)]
pub struct FormatIn {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub schema: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
pub struct MetadataIn {
    /// Names the end user; coding agents name the conversation in it too.
    #[serde(default)]
    pub user_id: Option<Value>,
}
