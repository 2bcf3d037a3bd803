//! Streamed replies: an execution's events as server-sent events, the receipt in the last chunk.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream};
use serde::Serialize;
use tokio::time::timeout;

use super::error::ApiError;
use super::formats::events::EventWriter;
use super::formats::format::ReplyFormat;
use super::surface::Surface;
use crate::backends::Event;
use crate::serving::error::ServeError;
use crate::serving::execution::Execution;
use crate::traffic::Receipt;

/// A comment keeps proxies from closing a stream whose model thinks for long.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Bytes that leave although more is ready.
const FRAME_BYTES: usize = 64 << 10;

const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    // nginx buffers responses unless it is asked not to.
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
];

/// An execution that is open, or whose candidates are still being tried.
pub enum Answer {
    Open(Box<Execution>),
    Opening(Opening),
}

/// Gives the execution back when a candidate has output, or all have failed.
pub type Opening = BoxFuture<'static, (Box<Execution>, Result<(), ServeError>)>;

/// Tries the candidates of an execution.
pub fn open(mut execution: Box<Execution>) -> Opening {
    async move {
        let opened = execution.open().await;
        (execution, opened)
    }
    .boxed()
}

/// Streams an execution to the surface that asked.
pub fn streamed(answer: Answer, surface: Surface, headers: HeaderMap) -> Response {
    (HEADERS, headers, Body::from_stream(frames(answer, surface))).into_response()
}

/// What happened to the execution while its events were collected.
enum Progress {
    /// The events so far are all that is ready.
    Running,
    Complete,
    Failed(ApiError),
}

/// The body: everything that is ready leaves in one piece.
fn frames(answer: Answer, surface: Surface) -> impl Stream<Item = Result<Bytes, Infallible>> {
    async_stream::stream! {
        let mut out = EventWriter::default();
        let mut execution = match answer {
            Answer::Open(execution) => execution,
            Answer::Opening(mut opening) => loop {
                out.keep_alive();
                yield Ok(out.take());
                match timeout(KEEP_ALIVE, &mut opening).await {
                    Ok((execution, Ok(()))) => break execution,
                    Ok((execution, Err(error))) => {
                        let mut format = surface.format(&execution);
                        fail(execution, &mut *format, &error.into(), &mut out);
                        yield Ok(out.take());
                        return;
                    }
                    Err(_) => {}
                }
            },
        };
        let mut format = surface.format(&execution);
        loop {
            match collect(&mut execution, &mut *format, &mut out).await {
                Progress::Running => yield Ok(out.take()),
                Progress::Complete => break,
                Progress::Failed(error) => {
                    fail(execution, &mut *format, &error, &mut out);
                    yield Ok(out.take());
                    return;
                }
            }
        }
        // In the receipts before the last chunk leaves: a client that has seen it finds the request
        // there.
        let receipt = execution.answered();
        format.finish(&receipt, &mut out);
        out.comment("energy", &EnergyComment::of(&receipt));
        format.done(&mut out);
        yield Ok(out.take());
    }
}

/// Waits for events that have something to send, and takes all that follow at once.
async fn collect(
    execution: &mut Execution,
    format: &mut dyn ReplyFormat,
    out: &mut EventWriter,
) -> Progress {
    loop {
        if out.len() >= FRAME_BYTES {
            return Progress::Running;
        }
        let event = if out.is_empty() {
            let Ok(event) = timeout(KEEP_ALIVE, execution.next()).await else {
                out.keep_alive();
                return Progress::Running;
            };
            event
        } else {
            match execution.next().now_or_never() {
                Some(event) => event,
                None => return Progress::Running,
            }
        };
        match event {
            Some(Ok(event)) => {
                let done = matches!(event, Event::Done(_));
                format.event(event, out);
                if done {
                    return Progress::Complete;
                }
            }
            Some(Err(error)) => return Progress::Failed(error.into()),
            // A backend ends with `Done` or an error.
            None => return Progress::Failed(ApiError::INTERNAL),
        }
    }
}

/// After the first byte the status is gone, so a failure is an event of the stream and `[DONE]`
/// never comes.
fn fail(
    execution: Box<Execution>,
    format: &mut dyn ReplyFormat,
    error: &ApiError,
    out: &mut EventWriter,
) {
    let receipt = execution.failed(error.status().as_u16());
    format.fail(error, &receipt, out);
}

/// The body of the `: energy` comment, with the field names of the one such format in use
/// (Neuralwatt's).
#[derive(Serialize)]
struct EnergyComment {
    attribution_method: Option<&'static str>,
    energy_joules: Option<f64>,
    energy_kwh: Option<f64>,
    #[serde(rename = "final")]
    is_final: bool,
    quality: Option<&'static str>,
}

impl EnergyComment {
    fn of(receipt: &Receipt) -> Self {
        let figure = receipt.energy;
        let joules = figure.and_then(|figure| figure.joules).map(|joules| joules.0);
        Self {
            attribution_method: figure.map(|figure| figure.source.label()),
            energy_joules: joules,
            energy_kwh: joules.map(|joules| joules / 3.6e6),
            is_final: figure.is_some_and(|figure| figure.is_final),
            quality: figure.map(|figure| figure.quality.label()),
        }
    }
}
