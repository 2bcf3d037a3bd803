//! Whole replies: the answer as one JSON object with the receipt in it, and the headers that
//! explain a decision.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;

use super::error::ApiError;
use super::formats::choices::Choices;
use super::formats::format::{Answer, Content};
use super::receipt::write_with_receipt;
use super::surface::{Dialect, Surface};
use crate::backends::Event;
use crate::openai::Usage;
use crate::serving::Model;
use crate::serving::execution::Execution;
use crate::serving::plan::Plan;

/// Bytes of most receipts.
const RECEIPT_BYTES: usize = 2048;

/// Collects the answer of an opened execution; `headers` explain the decision.
pub async fn whole(
    mut execution: Box<Execution>,
    surface: Surface,
    dialect: Dialect,
    mut headers: HeaderMap,
) -> Response {
    let mut format = surface.format(&execution);
    let collected = collect(&mut execution).await;
    name_model(&mut headers, execution.model());
    match collected.and_then(|answer| format.whole(answer)) {
        Ok(object) => {
            let json = HeaderValue::from_static("application/json");
            headers.insert(header::CONTENT_TYPE, json);
            let receipt = execution.answered();
            let mut body = BytesMut::with_capacity(object.len() + RECEIPT_BYTES);
            write_with_receipt(&mut body, &object, &receipt);
            (headers, Body::from(body.freeze())).into_response()
        }
        Err(error) => {
            let id = Arc::clone(execution.id());
            let receipt = execution.failed(error.status().as_u16());
            (headers, dialect.refusal(&error, Some(&receipt), &id)).into_response()
        }
    }
}

async fn collect(execution: &mut Execution) -> Result<Answer, ApiError> {
    let (mut choices, mut usage, mut content) = (Choices::default(), Usage::default(), None);
    while let Some(event) = execution.next().await {
        match event? {
            Event::Embeddings(vectors) => content = Some(Content::Vectors(vectors)),
            Event::UpstreamAnswer(object) => content = Some(Content::Upstream(object)),
            Event::Usage(counted) => usage = counted,
            Event::Done(finish) => {
                choices.take(Event::Done(finish));
                let content = content.unwrap_or(Content::Local(choices));
                return Ok(Answer { content, finish, usage });
            }
            event => choices.take(event),
        }
    }
    // A backend ends with `Done` or an error; anything else is a fault of the gateway's.
    Err(ApiError::INTERNAL)
}

/// Headers that say which model answers and why, for people and for proxies that do not read
/// bodies.
pub fn explain(request_id: &Arc<str>, plan: &Plan) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    insert(&mut headers, "x-wattgate-request-id", request_id);
    insert(&mut headers, "x-wattgate-policy", &plan.policy.name);
    insert(&mut headers, "x-wattgate-reason", &plan.reason);
    if let Some(session) = plan.session {
        insert(&mut headers, "x-wattgate-session", &session.to_string());
    }
    headers
}

/// Adds the model that answers.
pub fn name_model(headers: &mut HeaderMap, model: &Model) {
    insert(headers, "x-wattgate-model", &model.name);
    insert(headers, "x-wattgate-route", model.route().label());
}

fn insert(headers: &mut HeaderMap, name: &'static str, text: &str) {
    // Names come from the config, which allows only visible ASCII; anything else is left out.
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(HeaderName::from_static(name), value);
    }
}
