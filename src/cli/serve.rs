//! `wattgate serve`: runs the gateway until SIGINT or SIGTERM; SIGHUP reloads the router and
//! reopens the traffic log.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use anyhow::Context;
use clap::Args;
use rustix::process::Signal as Signum;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::config_args::ConfigArgs;
use super::console::say;
use crate::app::App;
use crate::config;
use crate::serving::Gateway;
use crate::telemetry::logging;

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Listen here instead of the config's `server.listen`; port 0 takes a free port
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<u8> {
    let mut config = args.config.load()?;
    if let Some(listen) = args.listen {
        config.server.listen = listen;
    }
    logging::init(&config.log);
    for warning in config::start_warnings(&config) {
        tracing::warn!("{warning}");
    }
    let engine_binary =
        std::env::current_exe().context("cannot find the wattgate binary itself")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        // Installed first: a signal during start-up must not leave engines behind.
        let mut signals = StopSignals::install()?;
        let stop = CancellationToken::new();
        // A limit on the size of files fails a write; with no handler it would end the process.
        let _file_too_large = signal(SignalKind::from_raw(Signum::XFSZ.as_raw()))?;
        let app = App::build(config, engine_binary).await?;
        // Scripts wait for this line to learn the port.
        say(&format!("listening on http://{}", app.address()));
        let hangups = reload_at_each(signal(SignalKind::hangup())?, Arc::downgrade(app.gateway()));
        let stopping = async {
            let name = signals.next().await;
            tracing::info!("{name}: stopping; once more ends at once");
            stop.cancel();
            let name = signals.next().await;
            tracing::warn!("{name} again: open answers are lost");
        };
        tokio::select! {
            served = app.run_until(stop.cancelled()) => served?,
            () = stopping => {}
            () = hangups => {}
        }
        anyhow::Ok(())
    })?;
    Ok(0)
}

/// Reloads the router and reopens the traffic log at each SIGHUP. Never ends. Holds the gateway
/// only during a reload, so that it can stop.
async fn reload_at_each(mut hangup: Signal, gateway: Weak<Gateway>) {
    loop {
        if hangup.recv().await.is_none() {
            return std::future::pending().await;
        }
        let Some(gateway) = gateway.upgrade() else { continue };
        gateway.receipts.sink.reopen();
        let reloaded = tokio::task::spawn_blocking(move || gateway.router.reload()).await;
        match reloaded {
            Ok(Ok(_)) => tracing::info!("SIGHUP: reloaded the router"),
            Ok(Err(error)) => tracing::error!("SIGHUP: {error}; keeping the current router"),
            Err(_) => tracing::error!(
                "SIGHUP: the reload of the router panicked; keeping the current router"
            ),
        }
    }
}

/// SIGINT and SIGTERM.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    fn install() -> std::io::Result<Self> {
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        Ok(Self { interrupt: signal(interrupt)?, terminate: signal(terminate)? })
    }

    /// The name of the next one.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
