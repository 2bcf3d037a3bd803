//! The application: built from a config, owner of every task and thread, one shutdown.
//!
//! Shutdown follows the data: clients, engines, meter, receipts, log. So the last request is
//! answered, metered, settled and written.

mod descriptors;
pub mod edge;
pub mod error;
pub mod harness;
pub mod idle_unloader;
pub mod observe;
mod operator_socket;
pub mod pollers;
pub mod wiring;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backends::llama::MemoryBudget;
use crate::config::Config;
use crate::energy::Meter;
use crate::http::config::Config as ServerConfig;
use crate::http::server::{self, Listener, Listeners, ServingThreads};
use crate::http::state::Edge;
use crate::serving::Gateway;
use crate::serving::judge::worker;
use crate::serving::receipts::emissions::Emissions;
use crate::serving::receipts::store::ReceiptStore;
use crate::shares::Share;
use crate::telemetry::Metrics;
use crate::traffic::LogWriter;

pub use error::AppError;
use operator_socket::SocketFile;
use pollers::Pollers;

/// Longest time for engines to stop once clients are disconnected.
const ENGINE_STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A gateway that is ready to run.
pub struct App {
    listeners: Listeners,
    /// The file of the operator's socket.
    socket_file: Option<SocketFile>,
    /// The threads that serve connections.
    threads: ServingThreads,
    address: SocketAddr,
    operator_address: Option<SocketAddr>,
    /// Bounds of connections.
    bounds: ServerConfig,
    edge: Edge,
    /// Supervisors of engine processes.
    engines: JoinSet<()>,
    stop_engines: CancellationToken,
    /// The task that settles receipts; ends when the meter does.
    settling: JoinSet<()>,
    meter: Meter,
    /// Fetch figures for the meter; stopped after it.
    pollers: Pollers,
    log: LogWriter,
}

impl App {
    /// Starts the meter, the log and the engines, and binds the port. `engine_binary` is the
    /// program whose `engine` subcommand serves a model: this one, except in tests.
    pub async fn build(config: Config, engine_binary: PathBuf) -> Result<Self, AppError> {
        // First: it fails most often, and nothing needs to be undone yet.
        let listener = bind(config.server.listen).await?;
        let address = listener.local_addr().map_err(AppError::Server)?;
        let operator = match config.server.admin_listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let operator_address = operator.as_ref().and_then(|listener| listener.local_addr().ok());
        let socket = config.admin.socket.as_deref().map(operator_socket::bind).transpose()?;
        let (socket, socket_file) = socket.unzip();
        let listeners = Listeners {
            public: Listener::Tcp(listener),
            operator: operator.map(Listener::Tcp),
            socket: socket.map(Listener::Unix),
        };
        let threads = ServingThreads::start().map_err(AppError::Server)?;
        let (log, sink) = LogWriter::start(&config.traffic.dir)?;
        let (mut meter, settlements) = Meter::start(&config.energy)?;
        let pollers = Pollers::start(meter.take_pollers());
        let metrics = Arc::new(Metrics::new());
        let stop_engines = CancellationToken::new();
        let mut engines = JoinSet::new();
        // Follows a container's CPU quota and this process's affinity, unlike llama.cpp's own
        // default.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let parts = wiring::Parts {
            meter: meter.handle(),
            metrics: Arc::clone(&metrics),
            engine_binary,
            residency: MemoryBudget::new(config.engines.budget_bytes(), cores),
            cpu: config.engines.cpu(),
            client_share: Share::new(config.server.client_share),
            sandbox: config.engines.sandbox,
            stop: stop_engines.clone(),
        };
        let router = wiring::router(&config, &parts, &mut engines)?;
        let idle_unloader = wiring::idle_unloader(&config, &parts, &router);
        engines.spawn(idle_unloader.run(stop_engines.clone()));
        let emissions = Emissions::new(meter.handle());
        let receipts = ReceiptStore::new(sink, emissions, Arc::clone(&metrics));
        let (judge, jobs) = wiring::judge(&config).unzip();
        let gateway =
            Arc::new(Gateway::new(router, receipts, metrics, config.traffic.prompts, judge));
        if let Some(jobs) = jobs {
            engines.spawn(worker::run(Arc::clone(&gateway), jobs, stop_engines.clone()));
        }
        let mut settling = JoinSet::new();
        let settler = Arc::clone(&gateway);
        settling.spawn(async move { settler.receipts.settle_all(settlements).await });
        let edge = edge::edge(&config, gateway);
        Ok(Self {
            listeners,
            socket_file,
            threads,
            address,
            operator_address,
            bounds: ServerConfig {
                max_connections: descriptors::connections(config.server.max_connections),
                ..config.server.clone()
            },
            edge,
            engines,
            stop_engines,
            settling,
            meter,
            pollers,
            log,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where `/admin` and `/metrics` are, if not at the address.
    pub fn operator_address(&self) -> Option<SocketAddr> {
        self.operator_address
    }

    /// The shared state, for tests that look behind the API.
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.edge.gateway
    }

    /// The runtimes of the threads that serve, for tests that watch them.
    pub fn serving_runtimes(&self) -> Vec<Handle> {
        self.threads.runtimes().cloned().collect()
    }

    /// Serves until `stop` resolves, then stops everything in order.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), AppError> {
        let Self { listeners, bounds, edge, mut engines, stop_engines, mut settling, .. } = self;
        let stop_server = CancellationToken::new();
        let threads = self.threads;
        let serving = server::serve(listeners, &threads, edge.clone(), &bounds, &stop_server);
        let stopping = async {
            stop.await;
            stop_server.cancel();
        };
        tokio::join!(serving, stopping);
        drop(self.socket_file);
        // The threads may be in the middle of something: joining them must not block the runtime.
        let _ = tokio::task::spawn_blocking(move || drop(threads)).await;
        stop_engines.cancel();
        if tokio::time::timeout(ENGINE_STOP_DEADLINE, drain(&mut engines)).await.is_err() {
            tracing::warn!("an engine did not stop in time; killed");
            engines.shutdown().await;
        }
        let meter = self.meter;
        // As above: it may be in the middle of a tick.
        let _ = tokio::task::spawn_blocking(move || meter.stop()).await;
        self.pollers.stop().await;
        drain(&mut settling).await;
        drop(edge);
        let log = self.log;
        let _ = tokio::task::spawn_blocking(move || log.join()).await;
        Ok(())
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|source| {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => {
                ": the port is in use; choose another with `--listen 127.0.0.1:0`"
            }
            io::ErrorKind::PermissionDenied => ": ports below 1024 need root",
            _ => "",
        };
        AppError::Listen { address, source, hint }
    })
}

async fn drain(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            tracing::error!("a task panicked");
        }
    }
}
