//! Reads a chat request: size, JSON, types, and the ranges OpenAI documents. Knows nothing of models.

mod tools;

use axum::body::Body;
use axum::http::HeaderMap;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use self::tools::check_tools;
use super::error::ApiError;
use crate::openai::ChatRequest;

/// Keeps a conversation on this machine. Anything but `false` counts as yes: privacy fails closed.
pub const LOCAL_ONLY: &str = "x-wattgate-local-only";

/// Collects the body up to `limit_bytes`.
pub async fn read_body(body: Body, limit_bytes: usize) -> Result<Bytes, ApiError> {
    match Limited::new(body, limit_bytes).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::BodyTooLarge { limit_bytes }),
        Err(_) => Err(ApiError::BodyUnreadable),
    }
}

pub fn parse(body: &[u8]) -> Result<ChatRequest, ApiError> {
    let request = serde_json::from_slice(body).map_err(|_| locate(body))?;
    check(&request)?;
    Ok(request)
}

pub fn local_only(headers: &HeaderMap) -> bool {
    headers.get(LOCAL_ONLY).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"false"))
}

/// Parses again with the path tracked: slower, so only once it is known that something is wrong.
fn locate(body: &[u8]) -> ApiError {
    let mut json = serde_json::Deserializer::from_slice(body);
    let Err(error) = serde_path_to_error::deserialize::<_, ChatRequest>(&mut json) else {
        return ApiError::NotJson("something follows the JSON object".to_owned());
    };
    let (param, inner) = (error.path().to_string(), error.into_inner());
    if inner.is_data() {
        ApiError::InvalidField { message: format!("`{param}`: {inner}"), param }
    } else {
        ApiError::NotJson(inner.to_string())
    }
}

/// A field whose value is of the right type and wrong all the same.
fn invalid(param: &str, message: &str) -> ApiError {
    ApiError::InvalidField { param: param.to_owned(), message: format!("`{param}` {message}") }
}

fn check(request: &ChatRequest) -> Result<(), ApiError> {
    let wrong = |param: &str, message: &str| Err(invalid(param, message));
    let within = |value: Option<f32>, high: f32| value.is_none_or(|v| (0.0..=high).contains(&v));
    if request.messages.is_empty() {
        wrong("messages", "must hold at least one message")
    } else if !within(request.temperature, 2.0) {
        wrong("temperature", "must be between 0 and 2")
    } else if !within(request.top_p, 1.0) {
        wrong("top_p", "must be between 0 and 1")
    } else if request.output_limit() == Some(0) {
        wrong("max_completion_tokens", "must be at least 1")
    } else if request.n == Some(0) {
        wrong("n", "must be at least 1")
    } else if request.stop.as_ref().is_some_and(|stop| stop.0.len() > 4) {
        wrong("stop", "takes at most 4 strings")
    } else {
        check_tools(request)
    }
}
