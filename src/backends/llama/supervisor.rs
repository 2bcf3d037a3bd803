//! Keeps one engine process running: starts it, relays frames, notices when it dies or hangs, starts it again.
//!
//! Between two processes the model is on standby (`standby.rs`): unloaded, or waiting for memory. A model that is kept
//! loaded is started again by itself; any other one when somebody asks for it.
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
use super::backlog::Backlog;
use super::choices;
use super::config::{Config, LoadWhen};
use super::control::{Answer, ControlError, Unload, UnloadReason};
use super::handle::{Command, EngineState, LlamaBackend, Phase, RETRY_AFTER, Submit};
use super::observer::EngineObserver;
use super::process::EngineProcess;
use super::protocol::{self, FromEngine, MAX_FRAME, Settings, ToEngine};
use super::residency::{Claim, Residency, TooLarge};
use crate::backends::backend::ErrorKind;
use crate::units::AttemptId;

/// First pause before a dead engine is started again; doubles with every death in a row.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MOST: Duration = Duration::from_secs(30);

/// A process that was ready this long is well: the next death starts over with the first pause.
const STABLE_AFTER: Duration = Duration::from_mins(1);

/// Pause after a load that failed: only someone who puts the right file there, or frees memory, can help.
const LOAD_RETRY: Duration = Duration::from_secs(30);

const STILL_LOADING: ErrorKind =
    ErrorKind::NotLoaded { reason: "it is still loading", retry_after: RETRY_AFTER };

/// The owner of one model's engine process.
pub struct Supervisor {
    link: Link,
    gguf: PathBuf,
    binary: PathBuf,
    residency: Arc<Residency>,
}

/// What stays while processes come and go.
pub(super) struct Link {
    pub(super) model: Arc<str>,
    pub(super) config: Arc<Config>,
    observer: Arc<dyn EngineObserver>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) state: watch::Sender<EngineState>,
    attempts: Attempts,
    /// What came while the model was not loaded.
    pub(super) waiting: Backlog,
    /// Operators who wait for the load.
    pub(super) asked: Vec<Answer>,
    /// It is to leave once it is idle.
    leaving: Option<Leaving>,
    /// It is loaded, and after a death loaded again, without being asked for.
    pub(super) keep: bool,
    /// When the present process finished loading.
    ready_since: Option<Instant>,
}

/// An unload that waits for the last answer.
struct Leaving {
    reason: UnloadReason,
    answers: Vec<Answer>,
}

/// How a process's life ended.
enum Ended {
    /// We were told to stop.
    Stopped,
    /// Its memory is better used otherwise.
    Unloaded(UnloadReason),
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
    residency: Arc<Residency>,
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
                Ended::Died(_) => self.link.pause_after_death(&mut backoff),
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

impl Link {
    /// Speaks with the process until one side has enough. Dropping the socket on return tells it to leave.
    async fn converse(
        &mut self,
        socket: UnixStream,
        gguf: &Path,
        claim: &mut Claim,
        started: Instant,
    ) -> Ended {
        let codec = LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME).new_codec();
        let (sink, frames) = Framed::new(socket, codec).split();
        // As long as the command channel: a full outbox means a process that has stopped reading.
        let (outbox, queued) = mpsc::channel(self.commands.max_capacity() + 1);
        let outbox = Outbox(outbox);
        if let Err(ended) = outbox.send(&ToEngine::Load(self.settings(gguf, claim.threads()))) {
            return ended;
        }
        tokio::select! {
            ended = self.listen(frames, outbox, claim, started) => ended,
            ended = write_frames(queued, sink) => ended,
        }
    }

    /// Relays both ways until the process is gone, is silent for too long or talks nonsense.
    async fn listen(
        &mut self,
        mut frames: SplitStream<Wire>,
        outbox: Outbox,
        claim: &mut Claim,
        started: Instant,
    ) -> Ended {
        let mut heard = started;
        loop {
            if let Err(ended) = self.take_stock(&outbox, claim) {
                return ended;
            }
            let (patience, waits) = self.patience();
            tokio::select! {
                frame = frames.next() => {
                    heard = Instant::now();
                    let Some(frame) = frame else { return Ended::Died("it died".to_owned()) };
                    let ended = match frame.map_err(Into::into).and_then(|bytes| protocol::decode(&bytes)) {
                        Ok(message) => self.hear(message, started),
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
                () = claim.wanted_back() => {
                    if !self.is_busy() {
                        return Ended::Unloaded(UnloadReason::Evicted);
                    }
                }
                () = self.waiting.next_deadline() => self.waiting.expire(&STILL_LOADING),
                () = sleep_until(heard + patience), if waits => {
                    return Ended::Died(format!("it said nothing for {} ms", patience.as_millis()));
                }
            }
        }
    }

    /// Between two events: sends on who waited, notes whether there is anything to do, and leaves if it is to.
    fn take_stock(&mut self, outbox: &Outbox, claim: &mut Claim) -> Result<(), Ended> {
        if self.ready_since.is_some() {
            match &self.leaving {
                Some(leaving) if self.attempts.is_empty() => {
                    return Err(Ended::Unloaded(leaving.reason));
                }
                Some(_) => {}
                None => {
                    while let Some(submit) = self.waiting.pop() {
                        self.submit(submit, outbox)?;
                    }
                }
            }
        }
        claim.set_busy(self.is_busy());
        Ok(())
    }

    /// Whether ending the engine now would keep anybody waiting.
    fn is_busy(&self) -> bool {
        self.ready_since.is_none()
            || !self.attempts.is_empty()
            || !self.waiting.is_empty()
            || !self.commands.is_empty()
    }

    /// How long the process may be silent, and whether that matters just now. While it loads it tells its progress.
    fn patience(&self) -> (Duration, bool) {
        match self.ready_since {
            None => (self.config.load_timeout(), true),
            Some(_) => (self.config.hang_timeout(), !self.attempts.is_empty()),
        }
    }

    fn hear(&mut self, message: FromEngine, started: Instant) -> Result<(), Ended> {
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
                let took = started.elapsed();
                self.state.send_modify(|state| {
                    state.phase = Phase::Ready(facts);
                    state.last_load = Some(took);
                });
                self.observer.engine_ready(&self.model, took);
                for answer in self.asked.drain(..) {
                    let _gone = answer.send(Ok(()));
                }
            }
            FromEngine::LoadFailed { reason } => return Err(Ended::LoadFailed(reason)),
            FromEngine::Admitted { attempt, at, dropped_turns } => {
                self.attempts.admitted(attempt, at, dropped_turns);
            }
            FromEngine::Vector { attempt, vector } => self.attempts.vector(attempt, vector),
            FromEngine::Step { report, pieces, logprobs, confidences } => {
                self.observer.step(&self.model, &choices::joined(report));
                for (attempt, confidence) in confidences {
                    self.attempts.confidence(attempt, confidence);
                }
                for (attempt, logprobs) in logprobs {
                    self.attempts.logprobs(attempt, logprobs);
                }
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
            Command::Submit(submit) if self.ready_since.is_some() && self.leaving.is_none() => {
                self.submit(submit, outbox)
            }
            Command::Submit(submit)
                if self.ready_since.is_some() || self.state.borrow().on_demand =>
            {
                self.waiting.push(submit, self.config.load_timeout());
                Ok(())
            }
            Command::Submit(submit) => {
                submit.refuse(&not_running());
                Ok(())
            }
            Command::Cancel(attempt) if self.attempts.contains(attempt) => {
                outbox.send(&ToEngine::Cancel(attempt))
            }
            Command::Cancel(attempt) => {
                self.forget(attempt);
                Ok(())
            }
            Command::Load(answer) => {
                if self.ready_since.is_some() {
                    let _gone = answer.send(Ok(()));
                } else {
                    self.asked.push(answer);
                }
                Ok(())
            }
            Command::Unload(unload) => {
                self.begin_to_leave(unload);
                Ok(())
            }
        }
    }

    fn submit(&mut self, submit: Submit, outbox: &Outbox) -> Result<(), Ended> {
        let frames = submit.choices.iter().map(|choice| choice.frame.clone());
        let frames: Vec<Bytes> = frames.collect();
        self.attempts.open(submit, &self.model, &self.observer);
        frames.into_iter().try_for_each(|frame| outbox.forward(frame))
    }

    /// Nobody wants an answer any more that the engine has not heard of: it is booked as no work at all.
    pub(super) fn forget(&mut self, sequence: AttemptId) {
        if self.waiting.cancel(sequence) {
            let attempt = choices::attempt_of(sequence);
            self.observer.attempt_opened(&self.model, attempt);
            self.observer.attempt_closed(&self.model, attempt);
        }
    }

    fn begin_to_leave(&mut self, unload: Unload) {
        if self.is_busy() && !unload.drain {
            let _gone = unload.answer.send(Err(ControlError::Busy));
            return;
        }
        let Unload { reason, answer, .. } = unload;
        let leaving = self.leaving.get_or_insert(Leaving { reason, answers: Vec::new() });
        leaving.answers.push(answer);
    }

    /// After a death or a failed load: what was sent in the meantime is refused at once, until it is tried again. An
    /// operator may cut the pause short by asking for the load, or keep the model from coming back by unloading it.
    async fn refuse_for(&mut self, pause: Duration) {
        let refuse_all = async {
            while let Some(command) = self.commands.recv().await {
                match command {
                    Command::Submit(submit) => submit.refuse(&not_running()),
                    Command::Cancel(_) => {}
                    Command::Load(answer) => return self.asked.push(answer),
                    Command::Unload(unload) => {
                        self.keep = false;
                        let _gone = unload.answer.send(Ok(()));
                    }
                }
            }
            std::future::pending::<()>().await;
        };
        // The time is what ends this.
        let _elapsed = timeout(pause, refuse_all).await;
    }

    /// From now on nobody is sent here, and whoever was waiting is told.
    fn take_down(&mut self, ended: &Ended) {
        // Whoever waited was never sent to the engine: nothing was spent on it.
        let (phase, kind) = match ended {
            Ended::Stopped => {
                (Phase::Stopped, ErrorKind::Unavailable("it is shutting down".to_owned()))
            }
            Ended::Unloaded(reason) => {
                info!(model = %self.model, reason = reason.label(), "the model is unloaded");
                self.state.send_modify(|state| {
                    state.phase = Phase::Unloaded;
                    state.on_demand = true;
                });
                return;
            }
            Ended::LoadFailed(reason) => {
                error!(model = %self.model, "the model could not be loaded: {reason}");
                let down = format!("it could not be loaded: {reason}");
                (Phase::Down(down.as_str().into()), ErrorKind::Unavailable(down))
            }
            Ended::Died(reason) => {
                let next = if self.keep { "is started anew" } else { "ended" };
                warn!(model = %self.model, "the engine {next}: {reason}");
                let down = format!("its engine died: {reason}");
                (Phase::Down(down.as_str().into()), ErrorKind::Unavailable(down))
            }
        };
        self.set_phase(phase);
        self.attempts.fail_all();
        for answer in self.asked.drain(..) {
            let _gone = answer.send(Err(ControlError::Failed(kind.to_string().into())));
        }
        self.waiting.fail_all(&kind);
    }

    fn too_large(&mut self, too_large: TooLarge) -> Ended {
        let ended = Ended::LoadFailed(too_large.to_string());
        self.take_down(&ended);
        ended
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

    /// `threads` is for a config that leaves them open.
    fn settings(&self, gguf: &Path, threads: usize) -> Settings {
        let config = &self.config;
        let threads = u32::try_from(threads).unwrap_or(u32::MAX);
        Settings {
            gguf: gguf.to_owned(),
            context_tokens: config.context_tokens,
            slots: config.slots,
            threads: if config.threads == 0 { threads } else { config.threads },
            batch_tokens: config.batch_tokens,
            queue: config.queue,
            gpu_layers: config.gpu_layers,
            flash_attention: config.flash_attention,
            kv_type: config.kv_type,
            mmap: config.mmap,
            mlock: config.mlock,
            lora: config.lora.clone().map(|path| (path, config.lora_scale)),
            chat_template: config.chat_template.clone(),
            overflow: config.overflow,
            embedding: config.embedding,
            pooling: config.pooling,
            host_cache_bytes: u64::from(config.host_cache_mib) << 20,
            draft_tokens: config.draft_tokens,
            prefill_stretch: config.prefill_stretch,
        }
    }
}

fn not_running() -> ErrorKind {
    ErrorKind::Unavailable("its engine is not running".to_owned())
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
