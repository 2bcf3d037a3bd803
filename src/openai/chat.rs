//! Chat completion requests and responses.
//!
//! The request lists the fields that Wattgate reads; all others stay in the original bytes, which
//! cloud backends forward, so an unknown field is never lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::constraint::{ResponseFormat, StructuredOutputs};
use super::content::{Content, Stop};
use super::lenient::{self, Given};
use super::logprobs::ChoiceLogprobs;
use super::tools::{FunctionCall, FunctionChoice, FunctionDefinition, Tool, ToolCall, ToolChoice};

/// Body of `POST /v1/chat/completions`, as far as Wattgate reads it.
#[derive(Debug, Deserialize)]
pub struct ChatRequest {
    /// `auto`, `auto/<policy>` or a model's own name.
    pub model: String,
    pub messages: Vec<Message>,
    #[serde(default)]
    pub stream: Option<bool>,
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    /// Older name of `max_completion_tokens`; −1 in either is no limit.
    #[serde(default, deserialize_with = "lenient::limit")]
    pub max_tokens: Option<u32>,
    #[serde(default, deserialize_with = "lenient::limit")]
    pub max_completion_tokens: Option<u32>,
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
    /// Number of choices, 1 to 128.
    #[serde(default, deserialize_with = "lenient::whole")]
    pub n: Option<u32>,
    #[serde(default)]
    pub logprobs: Option<bool>,
    /// Number of alternatives reported per token, 0 to 20; only with `logprobs`.
    #[serde(default, deserialize_with = "lenient::whole")]
    pub top_logprobs: Option<u32>,
    #[serde(default)]
    pub tools: Option<Vec<Tool>>,
    #[serde(default)]
    pub tool_choice: Option<ToolChoice>,
    /// Whether one answer may hold several calls. Default: yes.
    #[serde(default)]
    pub parallel_tool_calls: Option<bool>,
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
    /// vLLM's: the answer continues the last message, which is the assistant's.
    #[serde(default)]
    pub continue_final_message: Option<bool>,
    /// Kinds of output: `text` (the default), `audio`, `image`.
    #[serde(default)]
    pub modalities: Option<Vec<String>>,
    /// Variables of the chat template, such as `enable_thinking`. An extension of llama-server and
    /// vLLM.
    #[serde(default)]
    pub chat_template_kwargs: Option<Map<String, Value>>,
    /// Wattgate's own options; read by the edge.
    #[serde(default)]
    pub wattgate: Option<Box<RawValue>>,
    /// Names the end user. Of any type: only some upstreams care.
    #[serde(default)]
    pub user: Option<Value>,
    #[serde(default)]
    pub metadata: Option<Box<RawValue>>,
    /// Functions to call: tools in their older form.
    #[serde(default)]
    pub functions: Option<Vec<FunctionDefinition>>,
    /// Choice among the functions.
    #[serde(default)]
    pub function_call: Option<FunctionChoice>,
    /// Answers from the web: only some upstreams look there, as the next three say in their words.
    #[serde(default)]
    pub web_search_options: Given,
    #[serde(default)]
    pub search_parameters: Given,
    #[serde(default)]
    pub enable_search: Given,
    /// Services of an upstream around the model.
    #[serde(default)]
    pub plugins: Given,
    /// A form of the answer in a grammar of llama-server's or vLLM's.
    #[serde(default)]
    pub grammar: Given,
    #[serde(default)]
    pub guided_grammar: Given,
    /// Texts that the upstream's template puts into the prompt.
    #[serde(default)]
    pub documents: Given,
    /// A template instead of the model's own.
    #[serde(default)]
    pub chat_template: Given,
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
    /// Of other APIs: sent here by mistake, unless the upstream has them.
    #[serde(default)]
    pub system: Given,
    #[serde(default)]
    pub instructions: Given,
    #[serde(default)]
    pub stop_sequences: Given,
    /// The tools were offered as `functions`, their older form, and the client reads answers of
    /// that form.
    #[serde(skip)]
    pub offers_functions: bool,
}

impl ChatRequest {
    /// The client's output limit in tokens, under any of its names.
    pub fn output_limit(&self) -> Option<u32> {
        let by_predict = || self.n_predict.and_then(|most| u32::try_from(most).ok());
        self.max_completion_tokens.or(self.max_tokens).or_else(by_predict)
    }

    pub fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// Whether another modality than text is requested.
    pub fn wants_media(&self) -> bool {
        self.modalities.iter().flatten().any(|modality| modality != "text")
    }

    /// Whether the client requested a usage chunk at the end of the stream.
    pub fn wants_stream_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage.unwrap_or(false))
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "IndexMap<String, Value>")]
pub struct StreamOptions {
    pub include_usage: Option<bool>,
}

// By way of a map: a derived reader would take a list for an object.
impl TryFrom<IndexMap<String, Value>> for StreamOptions {
    type Error = &'static str;

    fn try_from(options: IndexMap<String, Value>) -> Result<Self, Self::Error> {
        match options.get("include_usage") {
            None | Some(Value::Null) => Ok(Self { include_usage: None }),
            Some(Value::Bool(wanted)) => Ok(Self { include_usage: Some(*wanted) }),
            Some(_) => Err("`include_usage` must be true or false"),
        }
    }
}

/// One turn of the conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub role: Role,
    #[serde(default)]
    pub content: Option<Content>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Reasoning of an assistant turn, sent back by clients that keep it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "text_of_content"
    )]
    pub reasoning_content: Option<String>,
    /// Tool calls of an assistant turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
    /// Id of the call that a tool turn answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// Call of an assistant turn in the older form, without an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function_call: Option<FunctionCall>,
    /// An assistant turn that was spoken; the upstream that spoke it has the sound.
    #[serde(default, skip_serializing_if = "Given::is_absent")]
    pub audio: Given,
    /// The turn is the beginning of the answer: some upstreams continue it.
    #[serde(default, skip_serializing_if = "Given::is_absent")]
    pub prefix: Given,
}

/// Text, also of a list of parts.
fn text_of_content<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let content = Option::<Content>::deserialize(deserializer)?;
    Ok(content.map(|content| content.text().into_owned()))
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
            function_call: None,
            audio: Given::default(),
            prefix: Given::default(),
        }
    }

    /// Memory that it holds, about.
    pub fn memory_bytes(&self) -> usize {
        let texts = [&self.name, &self.reasoning_content, &self.tool_call_id];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        let content = self.content.as_ref().map_or(0, Content::memory_bytes);
        let calls = self.tool_calls.iter().flatten().map(ToolCall::memory_bytes).sum::<usize>();
        let call = self.function_call.as_ref().map_or(0, FunctionCall::memory_bytes);
        size_of::<Self>() + texts + content + calls + call
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
    /// One that only some upstreams know.
    #[serde(other)]
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended its turn, or a stop string was met.
    Stop,
    /// The output limit or the context was reached.
    Length,
    ToolCalls,
    /// As [`Self::ToolCalls`], told to clients that offered `functions`.
    FunctionCall,
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
    /// Generated tokens, reasoning included: some upstreams count reasoning in the total only, not
    /// in
    /// `completion_tokens`.
    pub fn generated_tokens(&self) -> u64 {
        self.completion_tokens.max(self.total_tokens.saturating_sub(self.prompt_tokens))
    }

    /// Tokens of the reasoning.
    pub fn reasoning_tokens(&self) -> u64 {
        self.completion_tokens_details.map_or(0, |details| details.reasoning_tokens.unwrap_or(0))
    }

    /// Prompt tokens served from a cache.
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

/// Body of a non-streamed answer of a local model.
#[derive(Debug, Serialize)]
pub struct ChatResponse {
    pub id: String,
    /// Always `chat.completion`.
    pub object: &'static str,
    /// Seconds since the Unix epoch.
    pub created: u64,
    pub model: String,
    /// Changes when the same request may get another answer: model file or program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<Arc<str>>,
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
    /// `null` in an answer that only calls tools.
    pub content: Option<String>,
    /// Reasoning before the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call, for clients that offered `functions` instead of tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_call: Option<FunctionCall>,
    pub refusal: Option<()>,
}
