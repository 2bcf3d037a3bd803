//! `wattgate serve`.

use std::net::SocketAddr;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::ConfigArgs;
use crate::app::App;
use crate::telemetry::logging;

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Listen here instead of the config's `server.listen`; port 0 takes a free port
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

pub fn run(args: &ServeArgs) -> anyhow::Result<u8> {
    let mut config = args.config.load()?;
    if let Some(listen) = args.listen {
        config.server.listen = listen;
    }
    logging::init(&config.log);
    let engine_binary =
        std::env::current_exe().context("cannot find the wattgate binary itself")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        // Installed before anything starts: a signal during start-up must not kill engines half-born.
        let stop = stop_signal()?;
        let app = App::build(config, engine_binary).await?;
        announce(app.address());
        app.run_until(stop).await?;
        anyhow::Ok(())
    })?;
    Ok(0)
}

#[expect(clippy::print_stdout, reason = "scripts wait for this line to learn the port")]
fn announce(address: SocketAddr) {
    println!("listening on http://{address}");
}

/// Ends on SIGINT or SIGTERM.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        }
    })
}
