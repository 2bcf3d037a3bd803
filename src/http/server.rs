//! The listener: accepts, serves, and on a stop signal lets open answers end within the grace period.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::routes::routes;
use super::state::Edge;

/// Serves until `stop`, then up to `grace` longer for answers that are under way.
pub async fn serve(
    listener: TcpListener,
    edge: Edge,
    stop: CancellationToken,
    grace: Duration,
) -> io::Result<()> {
    let listener = listener.tap_io(|stream| {
        // Chunks are small and must leave at once.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = %error, "TCP_NODELAY could not be set");
        }
    });
    let stopped = stop.clone();
    let service = routes(edge).into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener, service)
        .with_graceful_shutdown(async move { stopped.cancelled().await });
    tokio::select! {
        served = serving => served,
        () = async { stop.cancelled().await; tokio::time::sleep(grace).await } => {
            tracing::warn!(grace_ms = grace.as_millis(), "answers were cut off at the end of the grace period");
            Ok(())
        }
    }
}
