//! The HTTP server: serves the listeners and, after a stop signal, lets open answers end within the
//! grace period.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::layers::connection_limit::LimitedListener;
use super::routes;
use super::state::Edge;

/// Connections that the operator's own listener takes at once.
const OPERATOR_CONNECTIONS: usize = 64;

/// The bound ports.
pub struct Listeners {
    pub public: TcpListener,
    /// For `/admin` and `/metrics`; `None` where they are served with the rest.
    pub operator: Option<TcpListener>,
    /// Most connections of clients at once.
    pub connections_max: usize,
}

/// Serves until `stop`, then up to `grace` longer for answers that are still open.
pub async fn serve(
    listeners: Listeners,
    edge: Edge,
    stop: CancellationToken,
    grace: Duration,
) -> io::Result<()> {
    let Listeners { public, operator, connections_max } = listeners;
    let public_routes = routes::public(edge.clone(), operator.is_none());
    let clients = run(public, connections_max, public_routes, &stop);
    let operators = async {
        match operator {
            Some(listener) => {
                run(listener, OPERATOR_CONNECTIONS, routes::operator(edge), &stop).await
            }
            None => Ok(()),
        }
    };
    tokio::select! {
        served = async { tokio::try_join!(clients, operators) } => served.map(|_| ()),
        () = async { stop.cancelled().await; tokio::time::sleep(grace).await } => {
            tracing::warn!(grace_ms = grace.as_millis(), "answers were cut off at the end of the grace period");
            Ok(())
        }
    }
}

async fn run(
    listener: TcpListener,
    connections_max: usize,
    routes: Router,
    stop: &CancellationToken,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(connections_max));
    let listener = LimitedListener::new(listener, places).tap_io(|stream| {
        // Chunks are small and must leave at once.
        if let Err(error) = stream.tcp().set_nodelay(true) {
            tracing::debug!(error = %error, "TCP_NODELAY could not be set");
        }
    });
    let service = routes.into_make_service_with_connect_info::<SocketAddr>();
    let stopped = stop.clone();
    axum::serve(listener, service)
        .with_graceful_shutdown(async move { stopped.cancelled().await })
        .await
}
