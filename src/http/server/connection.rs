//! One connection, HTTP/1.1 or HTTP/2, from its first byte to its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::activity::{Activity, Patience, Verdict};
use super::watched_body::WatchedBody;
use super::watched_io::WatchedIo;

/// A client that answers no ping for this long is gone (HTTP/2).
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;

/// Serves a connection until it ends, wastes its place, or, after `stop`, has finished its answers.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    routes: Router,
    patience: Patience,
    stop: CancellationToken,
) {
    // Chunks are small and must leave at once.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = %error, "TCP_NODELAY could not be set");
    }
    let activity = Arc::new(Activity::new());
    let io = TokioIo::new(WatchedIo::new(stream, Arc::clone(&activity)));
    let service = service_fn(|request: Request<Incoming>| {
        answer(routes.clone(), request, peer, Arc::clone(&activity))
    });
    let mut builder = auto::Builder::new(StreamTasks::default());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience.idle);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(patience.idle)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX);
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut check = tokio::time::interval(patience.idle.min(patience.unread) / 4);
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error = %error, "a connection failed");
                }
                return;
            }
            _ = check.tick() => match activity.verdict(patience, Instant::now()) {
                Verdict::Live => {}
                verdict => {
                    tracing::debug!(?verdict, "a connection was closed");
                    return;
                }
            },
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn answer(
    routes: Router,
    request: Request<Incoming>,
    peer: SocketAddr,
    activity: Arc<Activity>,
) -> Result<Response<WatchedBody>, Infallible> {
    let in_flight = activity.request();
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    let response = routes.oneshot(request).await?;
    Ok(response.map(|body| WatchedBody::new(body, in_flight)))
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
