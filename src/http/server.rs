//! The HTTP server: accepts connections within a limit and, after a stop signal, lets open answers
//! end within the grace period.
//!
//! Each connection is a task of its listener; whatever is left after the grace period is dropped,
//! which cancels its work.

mod activity;
mod connection;
mod watched_body;
mod watched_io;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::activity::Patience;
use super::config::Config;
use super::routes;
use super::state::Edge;

/// Connections that the operator's own listener takes at once.
const OPERATOR_CONNECTIONS: usize = 64;

/// Pause after a failed accept: the process is out of file descriptors, which only time frees.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bound ports.
pub struct Listeners {
    pub public: TcpListener,
    /// For `/admin` and `/metrics`; `None` where they are served with the rest.
    pub operator: Option<TcpListener>,
}

/// Bounds of all connections of a listener.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Most at once; further ones wait in the operating system's backlog.
    connections: usize,
    patience: Patience,
    /// How long open answers may go on after the stop signal.
    grace: Duration,
}

/// Serves until `stop`, then up to the grace period longer for answers that are still open.
pub async fn serve(listeners: Listeners, edge: Edge, config: &Config, stop: &CancellationToken) {
    let limits = Limits {
        connections: config.max_connections as usize,
        patience: Patience {
            idle: Duration::from_millis(config.idle_timeout_ms),
            unread: Duration::from_millis(config.write_timeout_ms),
        },
        grace: Duration::from_millis(config.shutdown_grace_ms),
    };
    let Listeners { public, operator } = listeners;
    let public_routes = routes::public(edge.clone(), operator.is_none());
    let clients = run(public, limits, public_routes, stop);
    let operators = async {
        if let Some(listener) = operator {
            let limits = Limits { connections: OPERATOR_CONNECTIONS, ..limits };
            run(listener, limits, routes::operator(edge), stop).await;
        }
    };
    tokio::join!(clients, operators);
}

async fn run(listener: TcpListener, limits: Limits, routes: Router, stop: &CancellationToken) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((place, listener.accept().await?))
        };
        tokio::select! {
            accepted = accepted => match accepted {
                Ok((place, (stream, peer))) => {
                    let (routes, stop) = (routes.clone(), stop.clone());
                    connections.spawn(async move {
                        connection::serve(stream, peer, routes, limits.patience, stop).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(error = %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_ended) = connections.join_next() => {}
            () = stop.cancelled() => break,
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.grace, ended).await.is_err() {
        tracing::warn!(
            grace_ms = limits.grace.as_millis(),
            connections = connections.len(),
            "connections were cut off at the end of the grace period"
        );
        connections.shutdown().await;
    }
}
