//! Keeps one engine process running: starts it, relays frames, notices when it dies or hangs, starts it again.
//!
//! One task per model, owned by whoever calls [`Supervisor::run`]. It never computes and never blocks on an engine or
//! a client. Dropping our end of the socket is how a process is told to leave.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::attempts::Attempts;
use super::config::Config;
use super::handle::{Command, EngineState, LlamaBackend, Phase, Submit};
use super::observer::EngineObserver;
use super::process::EngineProcess;
use super::protocol::{self, FromEngine, MAX_FRAME, Settings, ToEngine};
use crate::backends::backend::ErrorKind;

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
}

/// What stays while processes come and go.
struct Link {
    model: Arc<str>,
    config: Arc<Config>,
    observer: Arc<dyn EngineObserver>,
    commands: mpsc::Receiver<Command>,
    state: watch::Sender<EngineState>,
    attempts: Attempts,
    /// When the present process finished loading.
    ready_since: Option<Instant>,
}

/// How a process's life ended.
enum Ended {
    /// We were told to stop.
    Stopped,
    /// It said so itself, or there was nothing to load.
    LoadFailed(String),
    Died(String),
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
) -> (LlamaBackend, Supervisor) {
    let places = config.admissions();
    // Each place sends at most a submission and a cancellation; twice that covers answers that have ended but whose
    // streams are not dropped yet.
    let (sender, commands) = mpsc::channel(4 * places);
    let (state, watched) = watch::channel(EngineState::default());
    let config = Arc::new(config);
    let backend = LlamaBackend {
        model: Arc::clone(&model),
        config: Arc::clone(&config),
        commands: sender,
        places: Arc::new(Semaphore::new(places)),
        state: watched,
    };
    let attempts = Attempts::default();
    let link = Link { model, config, observer, commands, state, attempts, ready_since: None };
    (backend, Supervisor { link, gguf, binary })
}

impl Supervisor {
    /// Runs the engine, again and again, until `stop`; returns when its last process has ended.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = BACKOFF_FIRST;
        while let Some(pause) = match self.live(&stop).await {
            Ended::Stopped => None,
            Ended::LoadFailed(_) => Some(LOAD_RETRY),
            Ended::Died(_) => Some(self.link.pause_after_death(&mut backoff)),
        } {
            tokio::select! {
                () = self.link.refuse_for(pause) => {}
                () = stop.cancelled() => break,
            }
            self.link.state.send_modify(|state| state.restarts += 1);
        }
        self.link.set_phase(Phase::Stopped);
    }

    /// One process from its start to its end.
    async fn live(&mut self, stop: &CancellationToken) -> Ended {
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
        let ended = tokio::select! {
            ended = link.converse(socket, &self.gguf) => ended,
            () = stop.cancelled() => Ended::Stopped,
        };
        link.take_down(&ended);
        let status = process.end().await;
        link.state.send_modify(|state| state.pid = None);
        link.observer.engine_stopped(&link.model, pid);
        info!(model = %link.model, pid, status, "engine ended");
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

impl Link {
    /// Speaks with the process until one side has enough. Dropping the socket on return tells it to leave.
    async fn converse(&mut self, socket: UnixStream, gguf: &Path) -> Ended {
        let codec = LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME).new_codec();
        let (sink, frames) = Framed::new(socket, codec).split();
        // As long as the command channel: a full outbox means a process that has stopped reading.
        let (outbox, queued) = mpsc::channel(self.commands.max_capacity() + 1);
        let outbox = Outbox(outbox);
        if let Err(ended) = outbox.send(&ToEngine::Load(self.settings(gguf))) {
            return ended;
        }
        tokio::select! {
            ended = self.listen(frames, outbox) => ended,
            ended = write_frames(queued, sink) => ended,
        }
    }

    /// Relays both ways until the process is gone, is silent for too long or talks nonsense.
    async fn listen(&mut self, mut frames: SplitStream<Wire>, outbox: Outbox) -> Ended {
        let mut heard = Instant::now();
        loop {
            let (patience, waits) = self.patience();
            tokio::select! {
                frame = frames.next() => {
                    heard = Instant::now();
                    let Some(frame) = frame else { return Ended::Died("it died".to_owned()) };
                    let ended = match frame.map_err(Into::into).and_then(|bytes| protocol::decode(&bytes)) {
                        Ok(message) => self.hear(message),
                        Err(error) => Err(Ended::Died(error.to_string())),
                    };
                    if let Err(ended) = ended {
                        return ended;
                    }
                }
                Some(command) = self.commands.recv() => {
                    if self.attempts.is_empty() {
                        heard = Instant::now();
                    }
                    if let Err(ended) = self.obey(command, &outbox) {
                        return ended;
                    }
                }
                () = sleep_until(heard + patience), if waits => {
                    return Ended::Died(format!("it said nothing for {} ms", patience.as_millis()));
                }
            }
        }
    }

    /// How long the process may be silent, and whether that matters just now. While it loads it tells its progress.
    fn patience(&self) -> (Duration, bool) {
        match self.ready_since {
            None => (self.config.load_timeout(), true),
            Some(_) => (self.config.hang_timeout(), !self.attempts.is_empty()),
        }
    }

    fn hear(&mut self, message: FromEngine) -> Result<(), Ended> {
        match message {
            FromEngine::Loading { percent } => self.set_phase(Phase::Loading { percent }),
            FromEngine::Ready(facts) => {
                info!(
                    model = %self.model,
                    slots = facts.slots,
                    context_tokens = facts.context_tokens,
                    "engine ready: {}", facts.description
                );
                self.ready_since = Some(Instant::now());
                self.set_phase(Phase::Ready(facts));
            }
            FromEngine::LoadFailed { reason } => return Err(Ended::LoadFailed(reason)),
            FromEngine::Admitted { attempt, at } => self.attempts.admitted(attempt, at),
            FromEngine::Step { report, pieces } => {
                self.observer.step(&self.model, &report);
                for (attempt, piece) in pieces {
                    self.attempts.piece(attempt, piece);
                }
            }
            FromEngine::Closed { attempt, outcome } => self.attempts.close(attempt, outcome),
        }
        Ok(())
    }

    fn obey(&mut self, command: Command, outbox: &Outbox) -> Result<(), Ended> {
        match command {
            Command::Submit(submit) if self.ready_since.is_some() => {
                let frame = submit.frame.clone();
                self.attempts.open(submit, &self.model, &self.observer);
                outbox.forward(frame)
            }
            Command::Submit(submit) => {
                refuse(&submit);
                Ok(())
            }
            Command::Cancel(attempt) if self.attempts.contains(attempt) => {
                outbox.send(&ToEngine::Cancel(attempt))
            }
            Command::Cancel(_) => Ok(()),
        }
    }

    /// Between two processes: what was sent while the engine died is refused at once.
    async fn refuse_for(&mut self, pause: Duration) {
        let refuse_all = async {
            while let Some(command) = self.commands.recv().await {
                if let Command::Submit(submit) = command {
                    refuse(&submit);
                }
            }
            std::future::pending::<()>().await;
        };
        // The time is what ends this.
        let _elapsed = timeout(pause, refuse_all).await;
    }

    /// From now on nobody is sent here, and whoever was waiting is told.
    fn take_down(&mut self, ended: &Ended) {
        let phase = match ended {
            Ended::Stopped => Phase::Stopped,
            Ended::LoadFailed(reason) => {
                error!(model = %self.model, "the model could not be loaded: {reason}");
                Phase::Down(format!("it could not be loaded: {reason}").into())
            }
            Ended::Died(reason) => {
                warn!(model = %self.model, "the engine is started anew: {reason}");
                Phase::Down(format!("its engine is being restarted: {reason}").into())
            }
        };
        self.set_phase(phase);
        self.attempts.fail_all();
    }

    fn pause_after_death(&self, backoff: &mut Duration) -> Duration {
        if self.ready_since.is_some_and(|since| since.elapsed() >= STABLE_AFTER) {
            *backoff = BACKOFF_FIRST;
        }
        let pause = *backoff;
        *backoff = (pause * 2).min(BACKOFF_MOST);
        pause
    }

    fn set_phase(&self, phase: Phase) {
        self.state.send_modify(|state| state.phase = phase);
    }

    fn settings(&self, gguf: &Path) -> Settings {
        let config = &self.config;
        Settings {
            gguf: gguf.to_owned(),
            context_tokens: config.context_tokens,
            slots: config.slots,
            threads: config.threads,
            batch_tokens: config.batch_tokens,
            queue: config.queue,
            gpu_layers: config.gpu_layers,
            host_cache_bytes: u64::from(config.host_cache_mib) << 20,
            prefill_stretch: config.prefill_stretch,
        }
    }
}

fn refuse(submit: &Submit) {
    submit.progress.send_modify(|progress| progress.end = Some(Err(ErrorKind::EngineDied)));
}

/// Frames on their way to the process; never waits for it.
struct Outbox(mpsc::Sender<Bytes>);

impl Outbox {
    fn send(&self, message: &ToEngine) -> Result<(), Ended> {
        let frame = protocol::encode(message).map_err(|error| Ended::Died(error.to_string()))?;
        self.forward(frame.into())
    }

    fn forward(&self, frame: Bytes) -> Result<(), Ended> {
        self.0.try_send(frame).map_err(|_| Ended::Died("it has stopped reading".to_owned()))
    }
}

type Wire = Framed<UnixStream, LengthDelimitedCodec>;

async fn write_frames(
    mut queued: mpsc::Receiver<Bytes>,
    mut sink: SplitSink<Wire, Bytes>,
) -> Ended {
    while let Some(frame) = queued.recv().await {
        if let Err(error) = sink.send(frame).await {
            return Ended::Died(format!("its socket failed: {error}"));
        }
    }
    Ended::Died("it is no longer spoken to".to_owned())
}
