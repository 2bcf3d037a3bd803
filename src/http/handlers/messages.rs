//! `/v1/messages`, and what else clients of Anthropic's API look for.

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::generate::{Around, Call, Understood};
use crate::http::error::ApiError;
use crate::http::messages::chat::read_request;
use crate::http::surface::{Dialect, Surface};
use crate::openai::Request;
use crate::routing::Features;

/// The id of the request, under the name that Anthropic's clients read.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// Names of a coding agent's conversation, and of its subagent's in it.
const SESSION: &str = "x-claude-code-session-id";
const AGENT: &str = "x-claude-code-agent-id";

/// `POST /v1/messages`
pub async fn create(call: Call) -> Response {
    let id = call.request_id();
    let mut response = call.answer(Dialect::Messages, understand).await;
    if let Ok(id) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// `POST /v1/messages/count_tokens`: the gateway's estimate, before any engine has counted.
pub async fn count_tokens(call: Call) -> Response {
    #[derive(Serialize)]
    struct Count {
        input_tokens: u32,
    }
    let id = call.request_id();
    match call.understand(understand).await {
        Ok(understood) => {
            let input_tokens = Features::of(&understood.request).prompt_tokens;
            Json(Count { input_tokens }).into_response()
        }
        Err(error) => Dialect::Messages.refusal(&error, None, &id.0),
    }
}

fn understand(body: &[u8], around: Around<'_>) -> Result<Understood, ApiError> {
    let read = read_request(body)?;
    Ok(Understood {
        request: Request::Chat(read.request),
        translated: Some(read.body),
        surface: Surface::Messages(read.asked),
        stays_local: false,
        session: session(around.headers),
    })
}

/// The conversation that a coding agent names: a subagent has one of its own.
fn session(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let session = text(SESSION).filter(|session| !session.is_empty())?;
    Some(format!("{session}/{}", text(AGENT).unwrap_or_default()))
}

/// `HEAD /`, by which clients see whether the gateway is there.
pub async fn root(method: Method, uri: Uri) -> Result<(), ApiError> {
    match method {
        Method::HEAD => Ok(()),
        _ => Err(ApiError::UnknownPath(uri.path().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subagent_has_a_conversation_of_its_own() {
        let named = |pairs: &[(&'static str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
            });
            session(&pairs.collect())
        };
        assert_eq!(named(&[]), None);
        assert_eq!(named(&[(AGENT, "a")]), None);
        assert_eq!(named(&[(SESSION, "s")]).as_deref(), Some("s/"));
        assert_eq!(named(&[(SESSION, "s"), (AGENT, "a")]).as_deref(), Some("s/a"));
    }
}
