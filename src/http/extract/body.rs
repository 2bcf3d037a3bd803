//! Reads a request: size, encoding, JSON, types, and what no server could make sense of. Knows
//! nothing of models.

use axum::body::Body;
use axum::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use super::encoding::Encoding;
use super::fields::{read, wrong};
use super::legacy::modernise;
use super::local_only;
use super::ranges::{self, Fault};
use super::repeated::last_wins;
use crate::http::error::ApiError;
use crate::http::state::BodyLimits;
use crate::offload;
use crate::openai::embedding::MAX_INPUTS;
use crate::openai::{ChatRequest, CompletionRequest, EmbeddingRequest, Input, Inputs, Request};
use crate::shares::{Client, Taken};

/// A body that has arrived whole.
pub struct Received {
    /// Counted until the last clone is dropped.
    pub bytes: Bytes,
    /// The request asks, by a header, a trailer or its body, to stay on this machine.
    pub says_local: bool,
}

/// Collects the body within its limits, and decodes it.
pub async fn read_body(
    headers: &HeaderMap,
    body: Body,
    limits: &BodyLimits,
    client: Client,
) -> Result<Received, ApiError> {
    let encoding = Encoding::of(headers)?;
    let mut taken = limits.in_memory.take(client, 0).map_err(ApiError::bodies)?;
    let arriving = collect(body, limits.bytes, &mut taken);
    let (body, trailers) = match timeout(limits.timeout, arriving).await {
        Ok(collected) => collected?,
        Err(_) => return Err(ApiError::BodyTimeout { after: limits.timeout }),
    };
    let by_headers = [Some(headers), trailers.as_ref()].into_iter().flatten();
    let by_headers = by_headers.into_iter().any(local_only::in_headers);
    // What is decoded may be far larger than what came.
    let bytes = if encoding == Encoding::Plain { body.len() } else { limits.bytes };
    let limit_bytes = limits.bytes;
    let read = move || {
        let body = match encoding {
            Encoding::Plain => body,
            _ => encoding.decode(&body, limit_bytes, &mut taken)?,
        };
        let says_local = by_headers || local_only::in_body(&body);
        Ok(Received { bytes: Bytes::from_owner(Counted { body, _taken: taken }), says_local })
    };
    offload::run(bytes, read).await.unwrap_or(Err(ApiError::INTERNAL))
}

/// A body with its place in memory.
struct Counted {
    body: Bytes,
    _taken: Taken,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

async fn collect(
    body: Body,
    limit_bytes: usize,
    taken: &mut Taken,
) -> Result<(Bytes, Option<HeaderMap>), ApiError> {
    let mut body = Limited::new(body, limit_bytes);
    let (mut first, mut whole, mut trailers) = (Bytes::new(), BytesMut::new(), None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            if error.is::<LengthLimitError>() {
                ApiError::BodyTooLarge { limit_bytes }
            } else {
                ApiError::BodyUnreadable
            }
        })?;
        match frame.into_data() {
            Ok(data) => {
                taken.grow(data.len() as u64).map_err(ApiError::bodies)?;
                // Most bodies come in one piece, which is not copied.
                if first.is_empty() {
                    first = data;
                } else {
                    if whole.is_empty() {
                        whole.extend_from_slice(&first);
                    }
                    whole.extend_from_slice(&data);
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((if whole.is_empty() { first } else { whole.freeze() }, trailers))
}

/// What `read` makes of a body, and the body as upstreams should get it: the client's own, but for
/// a key that is there twice.
pub fn parse<T>(
    body: Bytes,
    read: impl Fn(&[u8]) -> Result<T, ApiError>,
) -> Result<(T, Bytes), ApiError> {
    match read(&body) {
        Ok(request) => Ok((request, body)),
        // What is wrong may be a value that a later one replaces.
        Err(ApiError::RepeatedField(_) | ApiError::InvalidField { .. }) => {
            let body = last_wins(&body).map_or(body, Bytes::from);
            Ok((read(&body)?, body))
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
