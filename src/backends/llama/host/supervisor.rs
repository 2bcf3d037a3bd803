//! Supervisor of one engine process: starts it, and restarts it after a death or a hang.
//!
//! `connection` exchanges messages with a process, `supervisor_state` is kept between processes.
//! Without a process the model is on standby (`standby`): unloaded, or waiting for memory. A model
//! that is kept loaded restarts by itself, any other with the next request.
//!
//! One task per model, owned by the caller of [`Supervisor::run`]. Never computes and never blocks
//! on an engine or a client. Dropping the supervisor's end of the socket ends the process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::attempts::Attempts;
use super::backend::LlamaBackend;
use super::backlog::Backlog;
use super::observer::EngineObserver;
use super::process::EngineProcess;
use super::state::{EngineState, Phase};
use super::supervisor_state::{ExitReason, SupervisorState};
use crate::backends::llama::config::{Config, LoadWhen};
use crate::backends::llama::memory::budget::{Lease, MemoryBudget};
use crate::backends::llama::wire::cpu::CpuCode;
use crate::backends::llama::wire::settings::is_script;
use crate::shares::{Share, Shares};

/// First pause before a restart; doubles with each death in a row.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// A process that was ready for this long resets the pause.
const STABLE_AFTER: Duration = Duration::from_mins(1);

/// Pause after a failed load: only another file or more memory helps.
const LOAD_RETRY: Duration = Duration::from_secs(30);

/// The owner of one model's engine process.
pub struct Supervisor {
    state: SupervisorState,
    gguf: PathBuf,
    binary: PathBuf,
    budget: Arc<MemoryBudget>,
}

/// A local model to create.
#[derive(Debug)]
pub struct LocalModel {
    pub name: Arc<str>,
    pub config: Config,
    pub gguf: PathBuf,
    /// The program with the hidden subcommand `engine`: usually this one.
    pub binary: PathBuf,
    pub cpu: CpuCode,
}

/// Creates a local model. The backend answers once the supervisor runs and the engine is loaded.
pub fn local_model(
    model: LocalModel,
    observer: Arc<dyn EngineObserver>,
    budget: Arc<MemoryBudget>,
) -> (LlamaBackend, Supervisor) {
    let LocalModel { name: model, config, gguf, binary, cpu } = model;
    let places = config.admissions();
    // Each place sends at most a submission and a cancellation; the rest is for loads and unloads.
    let (sender, commands) = mpsc::channel(4 * places);
    let keep_loaded = config.load == LoadWhen::Preload;
    // A request may come before the supervisor runs.
    let phase = if keep_loaded { Phase::Loading { percent: 0 } } else { Phase::Unloaded };
    let first = EngineState { phase, on_demand: !keep_loaded, ..EngineState::default() };
    let (published, watched) = watch::channel(first);
    let config = Arc::new(config);
    let backend = LlamaBackend {
        model: Arc::clone(&model),
        config: Arc::clone(&config),
        commands: sender,
        places: Shares::new(places as u64, Share::default()),
        state: watched,
        observer: Arc::clone(&observer),
    };
    let state = SupervisorState {
        model,
        config,
        cpu,
        observer,
        commands,
        published,
        attempts: Attempts::default(),
        backlog: Backlog::default(),
        load_waiters: Vec::new(),
        pending_unload: None,
        keep_loaded,
        ready_since: None,
    };
    (backend, Supervisor { state, gguf, binary, budget })
}

impl Supervisor {
    /// Runs the engine until `stop`; returns when its last process has ended.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let lease = tokio::select! {
                lease = self.state.standby(&self.gguf, &self.budget) => lease,
                () = stop.cancelled() => break,
            };
            let exit = match lease {
                Ok(lease) => self.run_process(lease, &stop).await,
                Err(too_large) => self.state.too_large(too_large),
            };
            let pause = match exit {
                ExitReason::Stopped => break,
                ExitReason::Unloaded(_) => continue,
                ExitReason::LoadFailed(_) => LOAD_RETRY,
                ExitReason::Died(_) => pause_after_death(self.state.ready_since, &mut backoff),
            };
            tokio::select! {
                () = self.state.refuse_for(pause) => {}
                () = stop.cancelled() => break,
            }
            self.state.published.send_modify(|state| state.restarts += 1);
        }
        self.state.take_down(&ExitReason::Stopped);
    }

    /// Runs one process from start to end. Its memory is free on return.
    async fn run_process(&mut self, mut lease: Lease, stop: &CancellationToken) -> ExitReason {
        let state = &mut self.state;
        state.ready_since = None;
        state.set_phase(Phase::Loading { percent: 0 });
        let (process, socket) = match start(&state.model, &self.gguf, &self.binary).await {
            Ok(started) => started,
            Err(exit) => {
                state.take_down(&exit);
                return exit;
            }
        };
        let pid = process.pid;
        state.observer.engine_started(&state.model, pid);
        state.published.send_modify(|state| state.pid = Some(pid));
        info!(model = %state.model, pid, "engine started");
        let started = Instant::now();
        let exit = tokio::select! {
            exit = state.run(socket, &self.gguf, &mut lease, started) => exit,
            () = stop.cancelled() => ExitReason::Stopped,
        };
        state.take_down(&exit);
        // Before the process is reaped: its CPU time can still be read.
        state.observer.engine_stopped(&state.model, pid);
        let status = match exit {
            ExitReason::Stopped | ExitReason::Unloaded(_) => process.exit().await,
            ExitReason::LoadFailed(_) | ExitReason::Died(_) => process.end().await,
        };
        state.published.send_modify(|state| state.pid = None);
        info!(model = %state.model, pid, status, "engine exited");
        if let ExitReason::Unloaded(reason) = exit {
            state.observer.engine_unloaded(&state.model, reason);
            // The next request loads it.
            state.keep_loaded = false;
        }
        let pending = state.pending_unload.take();
        for reply in pending.into_iter().flat_map(|unload| unload.replies) {
            let _gone = reply.send(Ok(()));
        }
        exit
    }
}

/// Starts a process if the model's file exists.
async fn start(
    model: &str,
    gguf: &Path,
    binary: &Path,
) -> Result<(EngineProcess, UnixStream), ExitReason> {
    tokio::fs::metadata(gguf)
        .await
        .map_err(|error| ExitReason::LoadFailed(format!("{}: {error}", gguf.display())))?;
    EngineProcess::spawn(binary, model, is_script(gguf)).map_err(|error| {
        ExitReason::Died(format!("{} could not be started: {error}", binary.display()))
    })
}

fn pause_after_death(ready_since: Option<Instant>, backoff: &mut Duration) -> Duration {
    if ready_since.is_some_and(|since| since.elapsed() >= STABLE_AFTER) {
        *backoff = BACKOFF_MIN;
    }
    let pause = *backoff;
    *backoff = (pause * 2).min(BACKOFF_MAX);
    pause
}
