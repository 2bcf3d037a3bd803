//! What the fuzz targets in `fuzz/` call here: the readers of what upstreams send. Compiled into
//! no other build; decides nothing.

use std::fmt::Write;
use std::time::SystemTime;

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use serde::de::IgnoredAny;

use super::answer::{self, Asked, Transcript};
use super::failure;
use super::request::{self, StreamUsage};
use crate::backends::Chunks;
use crate::backends::backend::{ErrorKind, Event};
use crate::openai::Request;

/// What a stream that comes in these pieces gives: the chunks to forward, then what follows them.
pub fn stream<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, request: &Request) -> String {
    let mut transcript = Transcript::new(Asked::of(request));
    let mut given = Given::default();
    for piece in pieces {
        let read = transcript.feed(piece);
        given.take(transcript.forward());
        if let Err(kind) = read {
            return given.ended(&kind);
        }
        if transcript.is_done() {
            break;
        }
    }
    given.finished(transcript)
}

/// What a whole answer gives where a stream was asked for.
pub fn stream_of_whole(body: &[u8], request: &Request) -> String {
    let mut transcript = Transcript::new(Asked::of(request));
    let mut given = Given::default();
    let read = transcript.feed_whole(body);
    given.take(transcript.forward());
    match read {
        Ok(()) => given.finished(transcript),
        Err(kind) => given.ended(&kind),
    }
}

/// What a client gets of a stream, one line a chunk.
#[derive(Default)]
struct Given(String);

impl Given {
    fn take(&mut self, chunks: Option<Chunks>) {
        for object in chunks.iter().flat_map(Chunks::objects) {
            serde_json::from_str::<IgnoredAny>(object).expect("a chunk is JSON");
            self.0.push_str(object);
            self.0.push('\n');
        }
    }

    fn ended(mut self, kind: &ErrorKind) -> String {
        let _ = write!(self.0, "{kind:?}");
        self.0
    }

    fn finished(mut self, transcript: Transcript) -> String {
        match transcript.finish() {
            Err(kind) => return self.ended(&kind),
            Ok(events) => {
                for event in events {
                    match event {
                        Event::UpstreamChunks(chunks) => self.take(Some(chunks)),
                        other => {
                            let _ = write!(self.0, "{other:?}");
                        }
                    }
                }
            }
        }
        self.0
    }
}

/// A whole answer.
pub fn whole(body: &[u8]) -> Result<Vec<Event>, ErrorKind> {
    answer::whole(&Bytes::copy_from_slice(body))
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

/// The bodies that may go to an upstream that calls the model `model`.
pub fn rewritten(body: &[u8], model: &str, streams: bool) -> impl Iterator<Item = Vec<u8>> {
    let usages: &[StreamUsage] = match streams {
        true => &[StreamUsage::Asked, StreamUsage::Withheld],
        false => &[StreamUsage::NotStreamed],
    };
    usages.iter().filter_map(move |usage| request::rewrite(body, model, *usage).ok())
}
