//! Replies to requests whose head cannot be read as HTTP/1: with the envelope, an id, a count and a
//! line of the access log like any other.
//!
//! hyper answers them with a bare status, which the wire keeps back, or not at all.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use bytes::{BufMut, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Collected};
use tokio::io::{Interest, ReadBuf};
use tokio::time::timeout;
use tower::ServiceExt;

use super::activity::Activity;
use super::listener::Stream;
use super::watched_io::Wire;
use crate::http::error::ApiError;

/// How long the client may take to read the reply, and to stop sending.
const PATIENCE: Duration = Duration::from_secs(1);

/// Most bytes of the rest of the request that are read. A reply to a client that is still sending
/// could be lost: closing with unread bytes resets the connection.
const REST_BYTES_MAX: usize = 1 << 20;

/// The failure by which a connection ended, if its client waits for a reply.
pub(super) fn failure(
    error: &(dyn Error + Send + Sync + 'static),
    wire: &Wire,
    activity: &Activity,
) -> Option<ApiError> {
    match wire.withheld() {
        Some(StatusCode::BAD_REQUEST) => Some(ApiError::MalformedHead),
        Some(_) => Some(ApiError::HeadTooLarge),
        None => {
            let is_late = error.downcast_ref().is_some_and(hyper::Error::is_timeout);
            // A client that has sent nothing expects nothing.
            (is_late && activity.has_begun_a_head()).then_some(ApiError::HeadTimeout)
        }
    }
}

/// Answers, and closes the connection.
pub(super) async fn reply(failure: ApiError, wire: &Wire, refusal: Router) {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = unknown_method();
    let Ok(response) = refused(refusal, request, failure).await;
    let bytes = written(response).await;
    let replying = async {
        write_all(wire.stream(), &bytes).await?;
        wire.stream().close_write()?;
        discard(wire.stream()).await
    };
    if let Ok(Err(error)) = timeout(PATIENCE, replying).await {
        tracing::debug!(error = %error, "a refusal could not be sent");
    }
}

/// The reply to a request that the routes do not get to see.
pub(super) async fn refused(
    refusal: Router,
    mut request: Request<Body>,
    failure: ApiError,
) -> Result<Response<Body>, Infallible> {
    request.extensions_mut().insert(failure);
    refusal.oneshot(request).await
}

/// The method of a request that could not be read, for the access log.
fn unknown_method() -> Method {
    Method::from_bytes(b"-").unwrap_or_default()
}

/// The reply as HTTP/1.1.
async fn written(response: Response<Body>) -> BytesMut {
    let (head, body) = response.into_parts();
    // The body of a refusal is whole and in memory.
    let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    let mut bytes = BytesMut::with_capacity(512 + body.len());
    bytes.put_slice(b"HTTP/1.1 ");
    bytes.put_slice(head.status.as_str().as_bytes());
    bytes.put_u8(b' ');
    bytes.put_slice(head.status.canonical_reason().unwrap_or_default().as_bytes());
    bytes.put_slice(b"\r\n");
    let length = body.len().to_string();
    let date = httpdate::fmt_http_date(SystemTime::now());
    let framing = [(header::CONTENT_LENGTH, &length), (header::DATE, &date)];
    let framing = framing.iter().map(|(name, value)| (name, value.as_bytes()));
    let ours = head.headers.iter().filter(|(name, _)| *name != header::CONTENT_LENGTH);
    for (name, value) in ours.map(|(name, value)| (name, value.as_bytes())).chain(framing) {
        for part in [name.as_str().as_bytes(), b": ", value, b"\r\n"] {
            bytes.put_slice(part);
        }
    }
    bytes.put_slice(b"\r\n");
    bytes.put_slice(&body);
    bytes
}

async fn write_all(stream: &Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.ready(Interest::WRITABLE).await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads the rest of what the client sends.
async fn discard(stream: &Stream) -> io::Result<()> {
    let mut space = [0; 4096];
    let mut left = REST_BYTES_MAX;
    while left > 0 {
        stream.ready(Interest::READABLE).await?;
        match stream.try_read_buf(&mut ReadBuf::new(&mut space)) {
            Ok(0) => break,
            Ok(read) => left = left.saturating_sub(read),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
