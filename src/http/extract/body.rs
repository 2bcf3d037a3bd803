//! Reads a request: size, encoding, JSON, types, and what no server could make sense of. Knows
//! nothing of models.

use axum::body::Body;
use axum::http::HeaderMap;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use super::encoding::Encoding;
use super::fields::{read, wrong};
use super::legacy::modernise;
use super::ranges::{self, Fault};
use super::repeated::last_wins;
use crate::http::error::ApiError;
use crate::http::state::BodyLimits;
use crate::openai::embedding::MAX_INPUTS;
use crate::openai::{ChatRequest, CompletionRequest, EmbeddingRequest, Input, Inputs, Request};

/// Collects the body within its limits, and decodes it.
pub async fn read_body(
    headers: &HeaderMap,
    body: Body,
    limits: BodyLimits,
) -> Result<Bytes, ApiError> {
    let encoding = Encoding::of(headers)?;
    let limit_bytes = limits.bytes;
    let whole = Limited::new(body, limit_bytes).collect();
    let body = match timeout(limits.timeout, whole).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return Err(ApiError::BodyTooLarge { limit_bytes });
        }
        Ok(Err(_)) => return Err(ApiError::BodyUnreadable),
        Err(_) => return Err(ApiError::BodyTimeout { after: limits.timeout }),
    };
    if encoding == Encoding::Plain {
        return Ok(body);
    }
    let decoding = tokio::task::spawn_blocking(move || encoding.decode(&body, limit_bytes));
    decoding.await.unwrap_or(Err(ApiError::INTERNAL))
}

/// Reads a body of one of the three kinds.
pub type Parse = fn(&[u8]) -> Result<Request, ApiError>;

/// The request, and the body as upstreams should get it: the client's own, but for a key that is
/// there twice.
pub fn parse(body: Bytes, parse: Parse) -> Result<(Request, Bytes), ApiError> {
    match parse(&body) {
        Ok(request) => Ok((request, body)),
        // What is wrong may be a value that a later one replaces.
        Err(ApiError::RepeatedField(_) | ApiError::InvalidField { .. }) => {
            let body = last_wins(&body).map_or(body, Bytes::from);
            Ok((parse(&body)?, body))
        }
        Err(error) => Err(error),
    }
}

pub fn parse_chat(body: &[u8]) -> Result<Request, ApiError> {
    let mut request: ChatRequest = read(body)?;
    if request.messages.is_empty() {
        return Err(wrong("messages", "must hold at least one message"));
    }
    check(ranges::fault(&request.sampling()))?;
    modernise(&mut request);
    Ok(Request::Chat(request))
}

pub fn parse_completion(body: &[u8]) -> Result<Request, ApiError> {
    let mut request: CompletionRequest = read(body)?;
    if request.prompt.0.is_empty() {
        request.prompt = Inputs::default();
    }
    check_count("prompt", &request.prompt)?;
    check(ranges::completion_fault(&request))?;
    Ok(Request::Completion(request))
}

pub fn parse_embedding(body: &[u8]) -> Result<Request, ApiError> {
    let request: EmbeddingRequest = read(body)?;
    if request.input.0.is_empty() {
        return Err(wrong("input", "must hold at least one text"));
    }
    check_count("input", &request.input)?;
    if request.input.0.iter().any(Input::is_empty) {
        return Err(wrong("input", "must not hold an empty text"));
    }
    if request.dimensions == Some(0) {
        return Err(wrong("dimensions", "must be at least 1"));
    }
    Ok(Request::Embedding(request))
}

fn check(fault: Option<Fault>) -> Result<(), ApiError> {
    fault.map_or(Ok(()), |fault| Err(wrong(fault.param, fault.message)))
}

fn check_count(param: &str, inputs: &Inputs) -> Result<(), ApiError> {
    if inputs.0.len() > MAX_INPUTS {
        return Err(wrong(param, &format!("takes at most {MAX_INPUTS} texts")));
    }
    Ok(())
}
