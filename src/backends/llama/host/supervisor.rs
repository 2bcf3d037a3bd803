//! Keeps one engine process running: starts it, and starts it again when it has died or hung. What is said with it is
//! `dialogue.rs`'s; what stays between two processes is `link.rs`'s.
//!
//! Between two processes the model is on standby (`standby.rs`): unloaded, or waiting for memory. A model that is kept
//! loaded is started again by itself; any other one when somebody asks for it.
//!
//! One task per model, owned by whoever calls [`Supervisor::run`]. It never computes and never blocks on an engine or
//! a client. Dropping our end of the socket is how a process is told to leave.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::attempts::Attempts;
use super::backend::LlamaBackend;
use super::backlog::Backlog;
use super::observer::EngineObserver;
use super::process::EngineProcess;
use super::state::{EngineState, Phase};
use super::supervisor_state::{Ended, Link};
use crate::backends::llama::config::{Config, LoadWhen};
use crate::backends::llama::memory::budget::{Claim, MemoryBudget};

/// First pause before a dead engine is started again; doubles with every death in a row.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MOST: Duration = Duration::from_secs(30);

/// A process that was ready this long is well: the next death starts over with the first pause.
const STABLE_AFTER: Duration = Duration::from_mins(1);

/// Pause after a load that failed: only someone who puts the right file there, or frees memory, can help.
const LOAD_RETRY: Duration = Duration::from_secs(30);

/// The owner of one model's engine process.
pub struct Supervisor {
    link: Link,
    gguf: PathBuf,
    binary: PathBuf,
    residency: Arc<MemoryBudget>,
}

/// Makes a local model: the handle answers once the supervisor runs and the engine has loaded `gguf`.
///
/// `binary` is the program whose hidden subcommand `engine` is the engine process: usually this one.
pub fn local_model(
    model: Arc<str>,
    config: Config,
    gguf: PathBuf,
    binary: PathBuf,
    observer: Arc<dyn EngineObserver>,
    residency: Arc<MemoryBudget>,
) -> (LlamaBackend, Supervisor) {
    let places = config.admissions();
    // Each place sends at most a submission and a cancellation; twice that covers answers that have ended but whose
    // streams are not dropped yet.
    let (sender, commands) = mpsc::channel(4 * places);
    let keep = config.load == LoadWhen::Preload;
    // A request may come before the supervisor runs.
    let phase = if keep { Phase::Loading { percent: 0 } } else { Phase::Unloaded };
    let first = EngineState { phase, on_demand: !keep, ..EngineState::default() };
    let (state, watched) = watch::channel(first);
    let config = Arc::new(config);
    let backend = LlamaBackend {
        model: Arc::clone(&model),
        config: Arc::clone(&config),
        commands: sender,
        places: Arc::new(Semaphore::new(places)),
        state: watched,
        observer: Arc::clone(&observer),
    };
    let link = Link {
        model,
        config,
        observer,
        commands,
        state,
        attempts: Attempts::default(),
        waiting: Backlog::default(),
        asked: Vec::new(),
        leaving: None,
        keep,
        ready_since: None,
    };
    (backend, Supervisor { link, gguf, binary, residency })
}

impl Supervisor {
    /// Runs the engine, again and again, until `stop`; returns when its last process has ended.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            let claim = tokio::select! {
                claim = self.link.standby(&self.gguf, &self.residency) => claim,
                () = stop.cancelled() => break,
            };
            let ended = match claim {
                Ok(claim) => self.live(claim, &stop).await,
                Err(too_large) => self.link.too_large(too_large),
            };
            let pause = match ended {
                Ended::Stopped => break,
                Ended::Unloaded(_) => continue,
                Ended::LoadFailed(_) => LOAD_RETRY,
                Ended::Died(_) => pause_after_death(self.link.ready_since, &mut backoff),
            };
            tokio::select! {
                () = self.link.refuse_for(pause) => {}
                () = stop.cancelled() => break,
            }
            self.link.state.send_modify(|state| state.restarts += 1);
        }
        self.link.take_down(&Ended::Stopped);
    }

    /// One process from its start to its end. Its place in memory is free when it has ended.
    async fn live(&mut self, mut claim: Claim, stop: &CancellationToken) -> Ended {
        let link = &mut self.link;
        link.ready_since = None;
        link.set_phase(Phase::Loading { percent: 0 });
        let (process, socket) = match start(&link.model, &self.gguf, &self.binary).await {
            Ok(started) => started,
            Err(ended) => {
                link.take_down(&ended);
                return ended;
            }
        };
        let pid = process.pid;
        link.observer.engine_started(&link.model, pid);
        link.state.send_modify(|state| state.pid = Some(pid));
        info!(model = %link.model, pid, "engine started");
        let started = Instant::now();
        let ended = tokio::select! {
            ended = link.converse(socket, &self.gguf, &mut claim, started) => ended,
            () = stop.cancelled() => Ended::Stopped,
        };
        link.take_down(&ended);
        // Before it is reaped: its last CPU time can still be read.
        link.observer.engine_stopped(&link.model, pid);
        let status = match ended {
            Ended::Stopped | Ended::Unloaded(_) => process.leave().await,
            Ended::LoadFailed(_) | Ended::Died(_) => process.end().await,
        };
        link.state.send_modify(|state| state.pid = None);
        info!(model = %link.model, pid, status, "engine ended");
        if let Ended::Unloaded(reason) = ended {
            link.observer.engine_unloaded(&link.model, reason);
            // From now on it is loaded when somebody asks.
            link.keep = false;
        }
        for answer in link.leaving.take().into_iter().flat_map(|leaving| leaving.answers) {
            let _gone = answer.send(Ok(()));
        }
        ended
    }
}

/// Starts a process, if there is something for it to load.
async fn start(
    model: &str,
    gguf: &Path,
    binary: &Path,
) -> Result<(EngineProcess, UnixStream), Ended> {
    tokio::fs::metadata(gguf)
        .await
        .map_err(|error| Ended::LoadFailed(format!("{}: {error}", gguf.display())))?;
    EngineProcess::spawn(binary, model)
        .map_err(|error| Ended::Died(format!("{} did not start: {error}", binary.display())))
}

fn pause_after_death(ready_since: Option<Instant>, backoff: &mut Duration) -> Duration {
    if ready_since.is_some_and(|since| since.elapsed() >= STABLE_AFTER) {
        *backoff = BACKOFF_FIRST;
    }
    let pause = *backoff;
    *backoff = (pause * 2).min(BACKOFF_MOST);
    pause
}
