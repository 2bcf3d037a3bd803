//! A whole answer as one JSON object, the receipt beside OpenAI's own fields.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;

use super::error::ApiError;
use super::formats::choices::Choices;
use super::formats::{completions, embeddings};
use crate::backends::Event;
use crate::openai::{ChatResponse, FinishReason, Request, Usage};
use crate::serving::Model;
use crate::serving::execution::Execution;
use crate::serving::plan::Plan;
use crate::traffic::Receipt;

/// Collects the answer of an opened execution.
pub async fn whole(mut execution: Execution) -> Result<Response, ApiError> {
    match collect(&mut execution).await {
        Ok(answer) => {
            let json = answer.render(&execution)?;
            let headers = explain(execution.id(), &execution.plan, Some(execution.model()));
            let receipt = execution.answered();
            let body = with_receipt(&json, &receipt)?;
            Ok((headers, [(header::CONTENT_TYPE, "application/json")], Body::from(body))
                .into_response())
        }
        Err(error) => {
            execution.failed(error.status().as_u16());
            Err(error)
        }
    }
}

/// An answer that has ended.
enum Answer {
    Local { choices: Choices, finish: FinishReason, usage: Usage },
    Embeddings { vectors: Vec<Vec<f32>>, usage: Usage },
    Upstream(Box<RawValue>),
}

async fn collect(execution: &mut Execution) -> Result<Answer, ApiError> {
    let (mut choices, mut usage, mut upstream) = (Choices::default(), Usage::default(), None);
    let mut vectors = None;
    while let Some(event) = execution.next().await {
        match event? {
            Event::Embeddings(all) => vectors = Some(all),
            Event::Upstream(object) => upstream = Some(object),
            Event::Usage(counted) => usage = counted,
            Event::Done(finish) => {
                choices.take(Event::Done(finish));
                return Ok(match (upstream, vectors) {
                    (Some(object), _) => Answer::Upstream(object),
                    (None, Some(vectors)) => Answer::Embeddings { vectors, usage },
                    (None, None) => Answer::Local { choices, finish, usage },
                });
            }
            event => choices.take(event),
        }
    }
    // A backend ends with `Done` or an error; anything else is a fault of ours.
    Err(ApiError::INTERNAL)
}

impl Answer {
    fn render(self, execution: &Execution) -> Result<String, ApiError> {
        match self {
            Self::Upstream(object) => Ok(object.get().to_owned()),
            Self::Embeddings { vectors, usage } => {
                let format = match execution.request() {
                    Request::Embedding(request) => request.encoding_format.unwrap_or_default(),
                    _ => return Err(ApiError::INTERNAL),
                };
                embeddings::render(vectors, format, &execution.model().name, usage)
                    .map_err(|_| ApiError::INTERNAL)
            }
            Self::Local { choices, finish, usage } => {
                if let Some(mut writer) = completions::Writer::of(execution) {
                    return Ok(writer.whole(&choices.raw(finish), usage));
                }
                serde_json::to_string(&ChatResponse {
                    id: completion_id(execution.id()),
                    object: "chat.completion",
                    created: execution.created(),
                    model: execution.model().name.to_string(),
                    choices: choices.whole(finish),
                    usage,
                })
                .map_err(|_| ApiError::INTERNAL)
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
    let receipt = serde_json::to_string(receipt).map_err(|_| ApiError::INTERNAL)?;
    let fields = object.trim_end().strip_suffix('}').ok_or(ApiError::INTERNAL)?.trim_end();
    let comma = if fields.ends_with('{') { "" } else { "," };
    Ok(format!("{fields}{comma}\"wattgate\":{receipt}}}"))
}

/// Headers that say who answers and why, for people and for proxies that do not read bodies.
pub fn explain(request_id: &Arc<str>, plan: &Plan, model: Option<&Model>) -> HeaderMap {
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
    if let Some(session) = plan.session {
        insert("x-wattgate-session", &session.to_string());
    }
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
            candidates: [].into(),
            attempts: vec![],
            energy: None,
            carbon: None,
            electricity_dollars: None,
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
