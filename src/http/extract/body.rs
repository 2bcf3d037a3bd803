//! Reads a request: size, JSON, types, and the ranges OpenAI documents. Knows nothing of models.

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use super::fields::{read, wrong};
use super::ranges::{self, Fault};
use super::tools::check_tools;
use crate::http::error::ApiError;
use crate::http::state::BodyLimits;
use crate::openai::embedding::MAX_INPUTS;
use crate::openai::{
    ChatRequest, CompletionRequest, EmbeddingRequest, Input, Inputs, Request, Stop,
};

/// Collects the body within its limits.
pub async fn read_body(body: Body, limits: BodyLimits) -> Result<Bytes, ApiError> {
    let limit_bytes = limits.bytes;
    let whole = Limited::new(body, limit_bytes).collect();
    match timeout(limits.timeout, whole).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(ApiError::BodyTooLarge { limit_bytes })
        }
        Ok(Err(_)) => Err(ApiError::BodyUnreadable),
        Err(_) => Err(ApiError::BodyTimeout { after: limits.timeout }),
    }
}

/// Reads a body of one of the three kinds.
pub type Parse = fn(&[u8]) -> Result<Request, ApiError>;

pub fn parse_chat(body: &[u8]) -> Result<Request, ApiError> {
    let request = read(body)?;
    check(&request)?;
    Ok(Request::Chat(request))
}

pub fn parse_completion(body: &[u8]) -> Result<Request, ApiError> {
    let request = read(body)?;
    check_completion(&request)?;
    Ok(Request::Completion(request))
}

pub fn parse_embedding(body: &[u8]) -> Result<Request, ApiError> {
    let request: EmbeddingRequest = read(body)?;
    check_inputs("input", &request.input)?;
    if request.input.0.iter().any(Input::is_empty) {
        return Err(wrong("input", "must not hold an empty text"));
    }
    if request.dimensions == Some(0) {
        return Err(wrong("dimensions", "must be at least 1"));
    }
    Ok(Request::Embedding(request))
}

fn check(request: &ChatRequest) -> Result<(), ApiError> {
    if request.messages.is_empty() {
        return Err(wrong("messages", "must hold at least one message"));
    }
    check_range(ranges::fault(request))?;
    if request.output_limit() == Some(0) {
        return Err(wrong("max_completion_tokens", "must be at least 1"));
    }
    check_tools(request)?;
    check_stop(request.stop.as_ref())
}

fn check_completion(request: &CompletionRequest) -> Result<(), ApiError> {
    check_inputs("prompt", &request.prompt)?;
    check_range(ranges::completion_fault(request))?;
    check_stop(request.stop.as_ref())
}

fn check_range(fault: Option<Fault>) -> Result<(), ApiError> {
    fault.map_or(Ok(()), |fault| Err(wrong(fault.param, &fault.message)))
}

fn check_stop(stop: Option<&Stop>) -> Result<(), ApiError> {
    if stop.is_some_and(|stop| stop.0.len() > 4) {
        Err(wrong("stop", "takes at most 4 strings"))
    } else {
        Ok(())
    }
}

fn check_inputs(param: &str, inputs: &Inputs) -> Result<(), ApiError> {
    match inputs.0.len() {
        0 => Err(wrong(param, "must hold at least one text")),
        1..=MAX_INPUTS => Ok(()),
        _ => Err(wrong(param, &format!("takes at most {MAX_INPUTS} texts"))),
    }
}
