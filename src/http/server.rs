//! The HTTP server: accepts connections within a limit and, after a stop signal, lets open answers
//! end within the grace period.
//!
//! Each connection is a task of its listener, on one of the threads; whatever is left after the
//! grace period is dropped, which cancels its work.

mod activity;
mod connection;
mod half_closed;
mod listener;
mod places;
mod threads;
mod unreadable;
mod watched_body;
mod watched_io;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::activity::Patience;
use self::connection::{Answering, Bounds};
use self::places::Places;
pub use self::threads::ServingThreads;
use super::config::Config;
use super::routes::{self, OperatorRoutes};
use super::state::Edge;
use crate::shares::Share;

/// Connections that the operator's own listener takes at once.
const OPERATOR_CONNECTIONS: usize = 64;

/// Connections beyond the limit that are open at once, to wait and to be refused; further ones wait
/// in the operating system's backlog.
const MARGIN: usize = 256;

/// How long a connection of the margin waits for a place. At more than half of the margin it does
/// not wait, so that the margin drains faster than it fills.
const PLACE_WAIT: Duration = Duration::from_secs(1);

/// How long a refused connection may take to say what it wants and to read the refusal.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);

/// Pause after a failed accept: the process is out of file descriptors, which only time frees.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub use listener::Listener;

/// The bound addresses.
pub struct Listeners {
    pub public: Listener,
    /// For `/admin` and `/metrics`; `None` where they are served with the rest.
    pub operator: Option<Listener>,
    /// For `/admin`, which is then nowhere else, and `/metrics`.
    pub socket: Option<Listener>,
}

/// Bounds of all connections of a listener.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Most at once.
    connections: usize,
    /// The part of them that one client may take.
    share: Share,
    patience: Patience,
    /// How long open answers may go on after the stop signal.
    grace: Duration,
}

/// Serves until `stop`, then up to the grace period longer for answers that are still open.
pub async fn serve(
    listeners: Listeners,
    threads: &ServingThreads,
    edge: Edge,
    config: &Config,
    stop: &CancellationToken,
) {
    let limits = Limits {
        connections: config.max_connections as usize,
        share: Share::new(config.client_share),
        patience: Patience {
            idle: Duration::from_millis(config.idle_timeout_ms),
            unread: Duration::from_millis(config.write_timeout_ms),
        },
        grace: Duration::from_millis(config.shutdown_grace_ms),
    };
    let Listeners { public, operator, socket } = listeners;
    let refusal = routes::refusal(Arc::clone(&edge.gateway));
    let network = OperatorRoutes { metrics: true, admin: socket.is_none() };
    let with_clients = if operator.is_none() { network } else { OperatorRoutes::default() };
    let public_routes = routes::public(edge.clone(), with_clients);
    let clients = run(public, threads, limits, public_routes, refusal.clone(), stop);
    let limits = Limits { connections: OPERATOR_CONNECTIONS, ..limits };
    let of_operator = async |listener: Option<Listener>, what| {
        if let Some(listener) = listener {
            let routes = routes::operator(edge.clone(), what);
            run(listener, threads, limits, routes, refusal.clone(), stop).await;
        }
    };
    let all = OperatorRoutes { metrics: true, admin: true };
    tokio::join!(clients, of_operator(operator, network), of_operator(socket, all));
}

async fn run(
    listener: Listener,
    threads: &ServingThreads,
    limits: Limits,
    routes: Router,
    refusal: Router,
    stop: &CancellationToken,
) {
    let places = Places::new(limits.connections, limits.share);
    let margin = Arc::new(Semaphore::new(MARGIN));
    let bounds = Bounds { patience: limits.patience, places: Arc::clone(&places) };
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let spare = Arc::clone(&margin).acquire_owned().await.map_err(io::Error::other)?;
            let (accepted, peer) = listener.accept().await?;
            Ok::<_, io::Error>((spare, accepted, peer))
        };
        tokio::select! {
            accepted = accepted => match accepted {
                Ok((spare, accepted, peer)) => {
                    let crowded = margin.available_permits() < MARGIN / 2;
                    let wait = if crowded { Duration::ZERO } else { PLACE_WAIT };
                    let (routes, refusal) = (routes.clone(), refusal.clone());
                    let answering = Answering { peer, routes, refusal };
                    let (bounds, stop) = (bounds.clone(), stop.clone());
                    let connection = async move {
                        let stream = match accepted.register() {
                            Ok(stream) => stream,
                            Err(error) => return not_accepted(&error),
                        };
                        if let Some(_place) = bounds.places.wait(peer, wait).await {
                            drop(spare);
                            answering.serve(stream, bounds.clone(), stop).await;
                        } else {
                            answering.refuse(stream, REFUSAL_PATIENCE).await;
                            drop(spare);
                        }
                    };
                    threads.spawn(connection, &mut connections);
                }
                Err(error) => {
                    not_accepted(&error);
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

fn not_accepted(error: &io::Error) {
    tracing::warn!(error = %error, "a connection could not be accepted");
}
