//! Reads an upstream's response body: server-sent events or a whole body, bounded in size and in silence.
//!
//! Knows nothing of what the bytes mean. Comments between events, which the SSE decoder drops, are shown to
//! [`Comments`] first.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use eventsource_stream::{EventStreamError, Eventsource};
use futures::{Stream, StreamExt};
use reqwest::Response;

use super::comment::Comments;
use super::failure;
use crate::backends::backend::ErrorKind;

/// Most bytes that may come without completing an event, so that an upstream cannot fill the memory.
const MAX_EVENT_BYTES: usize = 4 << 20;

/// The `data` of each event, as it comes. Silence longer than `idle_timeout` ends it.
pub(super) fn events(
    response: Response,
    idle_timeout: Duration,
    comments: Comments,
) -> impl Stream<Item = Result<String, ErrorKind>> {
    let since_event = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&since_event);
    let pieces = tokio_stream::StreamExt::timeout(response.bytes_stream(), idle_timeout);
    let bounded = pieces.map(move |piece| {
        let piece = piece
            .map_err(|_| ErrorKind::Timeout { after: idle_timeout })?
            .map_err(|error| failure::broken(&error))?;
        comments.feed(&piece);
        let bytes = counter.fetch_add(piece.len(), Ordering::Relaxed) + piece.len();
        if bytes > MAX_EVENT_BYTES {
            return Err(ErrorKind::Protocol(format!("an event of over {MAX_EVENT_BYTES} bytes")));
        }
        Ok(piece)
    });
    bounded.eventsource().map(move |event| {
        since_event.store(0, Ordering::Relaxed);
        match event {
            Ok(event) => Ok(event.data),
            Err(EventStreamError::Transport(kind)) => Err(kind),
            Err(EventStreamError::Utf8(_)) => {
                Err(ErrorKind::Protocol("the stream is not UTF-8".to_owned()))
            }
            Err(EventStreamError::Parser(_)) => {
                Err(ErrorKind::Protocol("the stream holds no server-sent events".to_owned()))
            }
        }
    })
}

/// The whole body, or an error if it is longer than `max_bytes`.
pub(super) async fn whole(mut response: Response, max_bytes: usize) -> Result<Vec<u8>, ErrorKind> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| failure::broken(&error))? {
        if body.len() + piece.len() > max_bytes {
            return Err(ErrorKind::Protocol(format!("an answer of over {max_bytes} bytes")));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}
