//! Chat completion requests and responses.
//!
//! The request lists what Wattgate reads; everything else a client sends stays in the original bytes, which cloud
//! backends forward, so an unknown field is never lost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::content::{Content, Stop};
use super::logprobs::ChoiceLogprobs;
use super::tools::{Tool, ToolCall, ToolChoice};

/// The body of `POST /v1/chat/completions`, as far as Wattgate reads it.
#[derive(Debug, Deserialize)]
pub struct ChatRequest {
    /// `auto`, `auto/<policy>` or a model's own name.
    pub model: String,
    pub messages: Vec<Message>,
    #[serde(default)]
    pub stream: Option<bool>,
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    /// Older name of `max_completion_tokens`.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    #[serde(default)]
    pub max_completion_tokens: Option<u32>,
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
    /// Most tokens to choose among; 0 or −1: all. Not OpenAI's, but common.
    #[serde(default)]
    pub top_k: Option<i32>,
    /// Least share of the most probable token's probability, 0 to 1. Not OpenAI's, but common.
    #[serde(default)]
    pub min_p: Option<f32>,
    /// −2 to 2.
    #[serde(default)]
    pub frequency_penalty: Option<f32>,
    /// −2 to 2.
    #[serde(default)]
    pub presence_penalty: Option<f32>,
    /// More than 0, up to 10; 1 does nothing. Not OpenAI's: llama-server's and Ollama's name, and vLLM's.
    #[serde(default, alias = "repetition_penalty")]
    pub repeat_penalty: Option<f32>,
    /// Token id to what is added to its logit, −100 to 100.
    #[serde(default)]
    pub logit_bias: Option<BTreeMap<u32, f32>>,
    /// Go on past the model's own end, up to the output limit. Not OpenAI's, but common.
    #[serde(default)]
    pub ignore_eos: Option<bool>,
    /// How many answers, 1 to 128.
    #[serde(default)]
    pub n: Option<u32>,
    #[serde(default)]
    pub logprobs: Option<bool>,
    /// How many of the most probable tokens to tell at each place, 0 to 20; only with `logprobs`.
    #[serde(default)]
    pub top_logprobs: Option<u32>,
    #[serde(default)]
    pub tools: Option<Vec<Tool>>,
    #[serde(default)]
    pub tool_choice: Option<ToolChoice>,
    /// Whether one answer may hold several calls; yes by default.
    #[serde(default)]
    pub parallel_tool_calls: Option<bool>,
    #[serde(default)]
    pub response_format: Option<ResponseFormat>,
    /// What the answer may be: `text` (the default), `audio`, `image`.
    #[serde(default)]
    pub modalities: Option<Vec<String>>,
    /// Variables for the model's chat template, such as `enable_thinking`. Not OpenAI's: llama-server's and vLLM's.
    #[serde(default)]
    pub chat_template_kwargs: Option<Map<String, Value>>,
    /// Wattgate's own options; read by the edge.
    #[serde(default)]
    pub wattgate: Option<Box<RawValue>>,
    /// Names the end user. Of any type: only some upstreams care.
    #[serde(default)]
    pub user: Option<Value>,
    #[serde(default)]
    pub metadata: Option<Value>,
}

impl ChatRequest {
    /// The most tokens the client wants back, under either name.
    pub fn output_limit(&self) -> Option<u32> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    pub fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// Whether the answer is to be more than text.
    pub fn wants_media(&self) -> bool {
        self.modalities.iter().flatten().any(|modality| modality != "text")
    }

    /// Whether the client asked for a usage chunk at the end of the stream.
    pub fn wants_stream_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage.unwrap_or(false))
    }
}

#[derive(Debug, Deserialize)]
pub struct StreamOptions {
    #[serde(default)]
    pub include_usage: Option<bool>,
}

/// `response_format`.
#[derive(Debug, Deserialize)]
pub struct ResponseFormat {
    /// `text`, `json_object` or `json_schema`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of the kind `json_schema`.
    #[serde(default)]
    pub json_schema: Option<JsonSchemaFormat>,
}

#[derive(Debug, Deserialize)]
pub struct JsonSchemaFormat {
    /// The JSON schema, as the client wrote it.
    #[serde(default)]
    pub schema: Option<Box<RawValue>>,
}

/// One turn of the conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub role: Role,
    #[serde(default)]
    pub content: Option<Content>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What an assistant's turn thought, sent back by clients that keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// What an assistant's turn called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
    /// The call that a tool's turn answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl Message {
    pub fn user(text: String) -> Self {
        Self {
            role: Role::User,
            content: Some(Content::Text(text)),
            name: None,
            reasoning_content: None,
            tool_calls: None,
            tool_call_id: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    /// OpenAI's newer name for the system turn.
    Developer,
    User,
    Assistant,
    Tool,
    /// Deprecated by OpenAI, still sent by old clients.
    Function,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended its turn, or a stop string was met.
    Stop,
    /// The output limit or the context was reached.
    Length,
    ToolCalls,
    ContentFilter,
}

/// Token counts of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    #[serde(default)]
    pub prompt_tokens: u64,
    #[serde(default)]
    pub completion_tokens: u64,
    #[serde(default)]
    pub total_tokens: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_details: Option<PromptTokensDetails>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_tokens_details: Option<CompletionTokensDetails>,
}

impl Usage {
    /// Tokens that were generated, reasoning included: some upstreams leave reasoning out of `completion_tokens` and
    /// have it in the total only.
    pub fn generated_tokens(&self) -> u64 {
        self.completion_tokens.max(self.total_tokens.saturating_sub(self.prompt_tokens))
    }

    /// Tokens of the reasoning.
    pub fn reasoning_tokens(&self) -> u64 {
        self.completion_tokens_details.map_or(0, |details| details.reasoning_tokens.unwrap_or(0))
    }

    /// Prompt tokens that came from a cache.
    pub fn cached_tokens(&self) -> u64 {
        self.prompt_tokens_details.map_or(0, |details| details.cached_tokens.unwrap_or(0))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptTokensDetails {
    #[serde(default)]
    pub cached_tokens: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletionTokensDetails {
    /// Tokens of the model's reasoning, its tags included.
    #[serde(default)]
    pub reasoning_tokens: Option<u64>,
}

/// A whole answer, as Wattgate writes it for its local models.
#[derive(Debug, Serialize)]
pub struct ChatResponse {
    pub id: String,
    /// Always `chat.completion`.
    pub object: &'static str,
    /// Seconds since the Unix epoch.
    pub created: u64,
    pub model: String,
    pub choices: Vec<Choice>,
    pub usage: Usage,
}

#[derive(Debug, Serialize)]
pub struct Choice {
    pub index: u32,
    pub message: AnswerMessage,
    pub logprobs: Option<ChoiceLogprobs>,
    pub finish_reason: FinishReason,
}

#[derive(Debug, Serialize)]
pub struct AnswerMessage {
    pub role: Role,
    /// Null in an answer that only calls tools.
    pub content: Option<String>,
    /// What the model thought before it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    pub refusal: Option<()>,
}
