//! A whole answer as one JSON object, the receipt beside OpenAI's own fields.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;

use super::error::ApiError;
use super::exchange::Exchange;
use super::plan::Plan;
use super::{completion, embedding};
use crate::backends::Event;
use crate::openai::chat::AnswerMessage;
use crate::openai::{ChatResponse, Choice, FinishReason, Request, Role, ToolCall, Usage};
use crate::traffic::Receipt;

/// Collects the answer of an opened exchange.
pub async fn whole(mut exchange: Exchange) -> Result<Response, ApiError> {
    match collect(&mut exchange).await {
        Ok(answer) => {
            let json = answer.render(&exchange)?;
            let headers = explain(exchange.id(), &exchange.plan, Some(exchange.model()));
            let receipt = exchange.answered();
            let body = with_receipt(&json, &receipt)?;
            Ok((headers, [(header::CONTENT_TYPE, "application/json")], Body::from(body))
                .into_response())
        }
        Err(error) => {
            exchange.failed(&error);
            Err(error)
        }
    }
}

/// An answer that has ended.
enum Answer {
    Local { message: AnswerMessage, usage: Usage, finish: FinishReason },
    Embeddings { vectors: Vec<Vec<f32>>, usage: Usage },
    Upstream(Box<RawValue>),
}

async fn collect(exchange: &mut Exchange) -> Result<Answer, ApiError> {
    let (mut message, mut usage, mut upstream) = (Collected::default(), Usage::default(), None);
    let mut vectors = None;
    while let Some(event) = exchange.next().await {
        match event? {
            Event::Started | Event::Truncated { .. } | Event::Energy(_) => {}
            Event::Embeddings(all) => vectors = Some(all),
            Event::Text(piece) => message.text.push_str(&piece),
            Event::Reasoning(piece) => message.reasoning.push_str(&piece),
            Event::ToolCall { id, name, .. } => message.calls.push(ToolCall::function(id, name)),
            Event::ToolArguments { piece, .. } => message.argue(&piece),
            Event::Upstream(object) => upstream = Some(object),
            Event::Usage(counted) => usage = counted,
            Event::Done(finish) => {
                return Ok(match (upstream, vectors) {
                    (Some(object), _) => Answer::Upstream(object),
                    (None, Some(vectors)) => Answer::Embeddings { vectors, usage },
                    (None, None) => Answer::Local { message: message.whole(), usage, finish },
                });
            }
        }
    }
    // A backend ends with `Done` or an error; anything else is a fault of ours.
    Err(ApiError::Internal)
}

/// A local answer as far as it has come.
#[derive(Default)]
struct Collected {
    text: String,
    reasoning: String,
    calls: Vec<ToolCall>,
}

impl Collected {
    /// Arguments come in order, so they are the last call's.
    fn argue(&mut self, piece: &str) {
        if let Some(function) = self.calls.last_mut().and_then(|call| call.function.as_mut()) {
            function.arguments.push_str(piece);
        }
    }

    fn whole(self) -> AnswerMessage {
        let says_nothing = self.text.is_empty() && !self.calls.is_empty();
        AnswerMessage {
            role: Role::Assistant,
            content: (!says_nothing).then_some(self.text),
            reasoning_content: Some(self.reasoning).filter(|text| !text.is_empty()),
            tool_calls: self.calls,
            refusal: None,
        }
    }
}

impl Answer {
    fn render(self, exchange: &Exchange) -> Result<String, ApiError> {
        match self {
            Self::Upstream(object) => Ok(object.get().to_owned()),
            Self::Embeddings { vectors, usage } => {
                let format = match exchange.request() {
                    Request::Embedding(request) => request.encoding_format.unwrap_or_default(),
                    _ => return Err(ApiError::Internal),
                };
                embedding::render(vectors, format, &exchange.model().name, usage)
                    .map_err(|_| ApiError::Internal)
            }
            Self::Local { message, usage, finish } => {
                if let Some(mut writer) = completion::Writer::of(exchange) {
                    return Ok(writer.whole(
                        message.content.as_deref().unwrap_or_default(),
                        finish,
                        usage,
                    ));
                }
                let choice = Choice { index: 0, message, logprobs: None, finish_reason: finish };
                serde_json::to_string(&ChatResponse {
                    id: completion_id(exchange.id()),
                    object: "chat.completion",
                    created: exchange.created(),
                    model: exchange.model().name.to_string(),
                    choices: vec![choice],
                    usage,
                })
                .map_err(|_| ApiError::Internal)
            }
        }
    }
}

/// OpenAI's ids of chat completions begin so, and some clients look.
pub fn completion_id(request_id: &str) -> String {
    format!("chatcmpl-{request_id}")
}

/// `object` (the text of a JSON object) with the receipt as one more field, its other bytes untouched.
pub fn with_receipt(object: &str, receipt: &Receipt) -> Result<String, ApiError> {
    let receipt = serde_json::to_string(receipt).map_err(|_| ApiError::Internal)?;
    let fields = object.trim_end().strip_suffix('}').ok_or(ApiError::Internal)?.trim_end();
    let comma = if fields.ends_with('{') { "" } else { "," };
    Ok(format!("{fields}{comma}\"wattgate\":{receipt}}}"))
}

/// Headers that say who answers and why, for people and for proxies that do not read bodies.
pub fn explain(request_id: &Arc<str>, plan: &Plan, model: Option<&super::Model>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut insert = |name: &'static str, text: &str| {
        // Names come from the config, which allows only visible ASCII; anything else is left out.
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    insert("x-wattgate-request-id", request_id);
    insert("x-wattgate-policy", &plan.policy.name);
    insert("x-wattgate-reason", &plan.decision.reason.to_string());
    if let Some(model) = model {
        insert("x-wattgate-model", &model.name);
        insert("x-wattgate-route", model.route().label());
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt() -> Receipt {
        Receipt {
            request_id: "r".into(),
            policy: "default".into(),
            route: None,
            model: None,
            reason: "because".into(),
            candidates: vec![],
            attempts: vec![],
            energy: None,
        }
    }

    #[test]
    fn the_receipt_joins_any_object() {
        for object in ["{}", "{ }", r#"{"a":1}"#, "{\"a\":1 }\n"] {
            let joined = with_receipt(object, &receipt()).unwrap();
            let value: serde_json::Value = serde_json::from_str(&joined).unwrap();
            assert_eq!(value["wattgate"]["request_id"], "r", "{object}");
        }
        assert!(with_receipt("[]", &receipt()).is_err());
    }
}
