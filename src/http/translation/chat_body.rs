//! A chat request as upstreams get it, written from a request of another surface. Pure.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::turns::Turn;
use crate::http::error::ApiError;
use crate::http::extract::body::parse_chat;
use crate::openai::{ChatRequest, Request, Tool};

/// The fields that other surfaces have too.
#[derive(Debug, Default, Serialize)]
pub struct ChatBody {
    pub model: String,
    pub messages: Vec<Turn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<AnswerForm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
}

/// `response_format`
#[derive(Debug, Serialize)]
pub struct AnswerForm {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    json_schema: Option<AnswerSchema>,
}

#[derive(Debug, Serialize)]
struct AnswerSchema {
    name: String,
    /// Verbatim: the order of its members is the order in which they are written.
    schema: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

impl AnswerForm {
    pub fn json_object() -> Self {
        Self { kind: "json_object", json_schema: None }
    }

    pub fn schema(name: Option<String>, schema: Box<RawValue>, strict: Option<bool>) -> Self {
        let name = name.unwrap_or_else(|| "answer".to_owned());
        Self { kind: "json_schema", json_schema: Some(AnswerSchema { name, schema, strict }) }
    }
}

impl ChatBody {
    /// The request, and its text for upstreams.
    pub fn parse(&self) -> Result<(ChatRequest, Vec<u8>), ApiError> {
        let body = serde_json::to_vec(self).map_err(|_| ApiError::INTERNAL)?;
        match parse_chat(&body)? {
            Request::Chat(request) => Ok((request, body)),
            _ => Err(ApiError::INTERNAL),
        }
    }
}

/// Has a local model think or not, as far as its template can. Upstreams have no common word for
/// it.
pub fn think(request: &mut ChatRequest, thinks: bool) {
    let variable = ("enable_thinking".to_owned(), thinks.into());
    request.chat_template_kwargs = Some([variable].into_iter().collect());
}
