//! What the fuzz targets in `fuzz/` call here: the readers of what upstreams send. Compiled into
//! no other build; decides nothing.

use std::fmt::Write;
use std::time::SystemTime;

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};

use super::answer::{self, Transcript};
use super::{failure, request};
use crate::backends::backend::{ErrorKind, Event};

/// What a stream that comes in these pieces gives: the chunks to forward, then what follows them.
pub fn stream<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, choices: u32) -> String {
    let mut transcript = Transcript::new(choices);
    let mut given = String::new();
    for piece in pieces {
        let read = transcript.feed(piece);
        if let Some(chunks) = transcript.forward() {
            chunks.objects().for_each(|object| {
                serde_json::from_str::<serde::de::IgnoredAny>(object).expect("a chunk is JSON");
                given.push_str(object);
            });
        }
        if let Err(kind) = read {
            let _ = write!(given, "{kind:?}");
            return given;
        }
        if transcript.is_done() {
            break;
        }
    }
    match transcript.finish() {
        Ok(events) => events.iter().for_each(|event| match event {
            Event::UpstreamChunks(chunks) => chunks.objects().for_each(|o| given.push_str(o)),
            other => {
                let _ = write!(given, "{other:?}");
            }
        }),
        Err(kind) => {
            let _ = write!(given, "{kind:?}");
        }
    }
    given
}

/// A whole answer.
pub fn whole(body: &[u8]) -> Result<Vec<Event>, ErrorKind> {
    let misplaced = answer::misplaced_error(body);
    answer::whole(&Bytes::copy_from_slice(body)).map_err(|kind| misplaced.unwrap_or(kind))
}

/// A response with an error status.
pub fn refused(status: u16, retry_after: &[u8], body: &[u8]) -> ErrorKind {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(retry_after) {
        headers.insert(RETRY_AFTER, value);
    }
    failure::refused(status, &headers, body, SystemTime::UNIX_EPOCH)
}

/// The body that goes to an upstream that calls the model `model`.
pub fn rewritten(body: &[u8], model: &str, streams: bool) -> Option<Vec<u8>> {
    request::rewrite(body, model, streams).ok()
}
