//! One connection, HTTP/1.1 or HTTP/2, from its first byte to its end.

use std::convert::Infallible;
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::activity::{Activity, Patience, Verdict};
use super::half_closed::{self, HalfClosed};
use super::listener::Stream;
use super::places::Places;
use super::unreadable;
use super::watched_body::WatchedBody;
use super::watched_io::{WatchedIo, Wire};
use crate::http::client::of_request;
use crate::http::error::ApiError;
use crate::http::peer::Peer;

/// A client that answers no ping for this long is gone (HTTP/2).
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;

/// Most bytes of a head, and of a reply that is buffered here.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Most bytes of a head over HTTP/2.
const HTTP_2_HEAD_MAX: usize = 16 << 10;

/// Larger heads are refused by the library, which gives such a reply no body.
const HTTP_2_HEAD_READ_MAX: u32 = 64 << 10;

/// What connections share.
#[derive(Clone)]
pub(super) struct Bounds {
    pub(super) patience: Patience,
    pub(super) places: Arc<Places>,
}

/// What answers the requests of a connection.
pub(super) struct Answering {
    pub(super) peer: Peer,
    pub(super) routes: Router,
    /// For requests that the routes do not get to see.
    pub(super) refusal: Router,
}

impl Answering {
    /// Serves until the connection ends, wastes its place, or, after `stop`, has finished its
    /// answers.
    pub(super) async fn serve(self, stream: Stream, bounds: Bounds, stop: CancellationToken) {
        let patience = bounds.patience;
        let activity = Arc::new(Activity::new());
        let wire = Wire::new(stream, Arc::clone(&activity));
        let version = Arc::new(HttpVersion::default());
        let answering = Arc::new(self);
        let service = service_fn(|request: Request<Incoming>| {
            version.note(request.version());
            let (activity, places) = (Arc::clone(&activity), Arc::clone(&bounds.places));
            Arc::clone(&answering).answer(request, activity, places)
        });
        let builder = builder(patience);
        let io = TokioIo::new(WatchedIo(Arc::clone(&wire)));
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut check = tokio::time::interval(patience.idle.min(patience.unread) / 4);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut was_idle = false;
        let mut closed = pin!(half_closed::closed(&wire));
        let mut half_closed: Option<HalfClosed> = None;
        let mut look = tokio::time::interval(half_closed::LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = false;
        loop {
            tokio::select! {
                // The connection first: a request that has arrived by now is none too late.
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        answering.failed(&*error, &wire, &activity).await;
                    }
                    return;
                }
                _ = check.tick() => match activity.verdict(patience, Instant::now()) {
                    Verdict::Live => was_idle = false,
                    // After a stall of the process a request may have come that is not read yet.
                    Verdict::Idle if !was_idle => was_idle = true,
                    verdict => {
                        tracing::debug!(?verdict, "a connection was closed");
                        return;
                    }
                },
                () = closed.as_mut(), if half_closed.is_none() => {
                    half_closed = Some(HalfClosed::new());
                    look.reset();
                }
                _ = look.tick(), if half_closed.is_some() => {
                    let is_there = half_closed.as_mut().is_none_or(|client| {
                        let takes_interim = version.is(Version::HTTP_11);
                        client.is_there(&wire, &activity, takes_interim, patience.unread)
                    });
                    // HTTP/2 knows of its own whether its client is there.
                    if !is_there && !version.is(Version::HTTP_2) {
                        return;
                    }
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    /// Refuses what the client asks, within about `patience`.
    pub(super) async fn refuse(self, stream: Stream, patience: Duration) {
        let activity = Arc::new(Activity::new());
        let wire = Wire::new(stream, Arc::clone(&activity));
        let refusal = self.refusal.clone();
        let service = service_fn(|request: Request<Incoming>| {
            let (refusal, in_flight) = (refusal.clone(), activity.request());
            async {
                let request = request.map(Body::new);
                let response =
                    unreadable::refused(refusal, request, ApiError::ConnectionsFull).await?;
                Ok::<_, Infallible>(WatchedBody::of(response, in_flight, None))
            }
        });
        let mut builder = builder(Patience { idle: patience, unread: patience });
        builder.http1().keep_alive(false);
        let io = TokioIo::new(WatchedIo(Arc::clone(&wire)));
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut ended = timeout(patience, connection.as_mut()).await;
        if ended.is_err() {
            connection.as_mut().graceful_shutdown();
            ended = timeout(patience, connection).await;
        }
        if let Ok(Err(error)) = ended {
            self.failed(&*error, &wire, &activity).await;
        }
    }

    /// The end of a connection by an error.
    async fn failed(
        &self,
        error: &(dyn Error + Send + Sync + 'static),
        wire: &Wire,
        activity: &Activity,
    ) {
        tracing::debug!(error = %error, "a connection failed");
        if let Some(failure) = unreadable::failure(error, wire, activity) {
            unreadable::reply(failure, wire, self.refusal.clone()).await;
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        activity: Arc<Activity>,
        places: Arc<Places>,
    ) -> Result<Response<WatchedBody>, Infallible> {
        let in_flight = activity.request();
        let mut request = request.map(Body::new);
        let client = of_request(self.peer, request.headers());
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(client);
        // The first request has the place of its connection.
        let place = if in_flight.is_alone { None } else { places.take(self.peer) };
        let failure = if place.is_none() && !in_flight.is_alone {
            Some(ApiError::ConnectionsFull)
        } else if request.version() == Version::HTTP_2 && head_bytes(&request) > HTTP_2_HEAD_MAX {
            Some(ApiError::HeadTooLarge)
        } else {
            None
        };
        let response = match failure {
            Some(failure) => unreadable::refused(self.refusal.clone(), request, failure).await,
            None => self.routes.clone().oneshot(request).await,
        }?;
        Ok(WatchedBody::of(response, in_flight, place))
    }
}

/// Bytes of a head as HTTP/2 counts them (RFC 9113, 6.5.2), without its pseudo-headers.
fn head_bytes(request: &Request<Body>) -> usize {
    let fields = request.headers().iter();
    fields.map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

fn builder(patience: Patience) -> auto::Builder<StreamTasks> {
    let mut builder = auto::Builder::new(StreamTasks::default());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.idle)
        .half_close(true)
        .max_buf_size(BUFFER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(patience.idle)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HTTP_2_HEAD_READ_MAX)
        .max_send_buf_size(BUFFER_BYTES_MAX);
    builder
}

/// The version of a connection's last request.
#[derive(Default)]
struct HttpVersion(AtomicU8);

impl HttpVersion {
    const KNOWN: [Version; 3] = [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2];

    fn note(&self, version: Version) {
        let place = Self::KNOWN.iter().position(|known| *known == version).unwrap_or(0);
        self.0.store(u8::try_from(place).unwrap_or(0), Ordering::Relaxed);
    }

    fn is(&self, version: Version) -> bool {
        Self::KNOWN.get(usize::from(self.0.load(Ordering::Relaxed))) == Some(&version)
    }
}

/// The tasks of a connection's HTTP/2 streams, which end with it.
#[derive(Clone, Debug, Default)]
struct StreamTasks(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamTasks {
    fn execute(&self, task: F) {
        let mut tasks = self.0.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}
