//! The connection to a running engine process: relays commands and frames until one side ends it.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tracing::info;

use super::attempt_event::Overrun;
use super::command::{Command, ControlError, NewAttempt, RETRY_AFTER, Unload};
use super::fan_out;
use super::state::{Phase, UnloadReason};
use super::supervisor_state::{ExitReason, PendingUnload, SupervisorState, not_running};
use crate::backends::backend::ErrorKind;
use crate::backends::llama::memory::budget::Lease;
use crate::backends::llama::wire::protocol::{self, FromEngine, MAX_FRAME, ToEngine};
use crate::backends::llama::wire::step::StepReport;

const STILL_LOADING: ErrorKind =
    ErrorKind::NotLoaded { reason: "it is still loading", retry_after: RETRY_AFTER };

impl SupervisorState {
    /// Runs the connection. On return the socket is dropped, which ends the process.
    pub(super) async fn run(
        &mut self,
        socket: UnixStream,
        gguf: &Path,
        lease: &mut Lease,
        started: Instant,
    ) -> ExitReason {
        let codec = LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME).new_codec();
        let (sink, frames) = Framed::new(socket, codec).split();
        // As long as the command channel: only a process that does not read fills it.
        let (outbox, queued) = mpsc::channel(self.commands.max_capacity() + 1);
        let outbox = Outbox(outbox);
        let settings = self.config.settings(gguf, lease.threads(), self.cpu);
        if let Err(exit) = outbox.send(&ToEngine::Load(settings)) {
            return exit;
        }
        tokio::select! {
            exit = self.relay(frames, outbox, lease, started) => exit,
            exit = write_frames(queued, sink) => exit,
        }
    }

    /// Relays until the process ends, is silent for too long or breaks the protocol.
    async fn relay(
        &mut self,
        mut frames: SplitStream<Wire>,
        outbox: Outbox,
        lease: &mut Lease,
        started: Instant,
    ) -> ExitReason {
        let mut last_frame = started;
        loop {
            if let Err(exit) = self.tick(&outbox, lease) {
                return exit;
            }
            let (timeout, applies) = self.silence_timeout();
            tokio::select! {
                frame = frames.next() => {
                    last_frame = Instant::now();
                    let Some(frame) = frame else { return self.died() };
                    let frame = frame.map_err(Into::into);
                    let handled = match frame.and_then(|bytes| protocol::decode(&bytes)) {
                        Ok(message) => self.on_message(message, started),
                        Err(error) => Err(ExitReason::Died(error.to_string())),
                    };
                    if let Err(exit) = handled {
                        return exit;
                    }
                }
                Some(command) = self.commands.recv() => {
                    if self.attempts.is_empty() {
                        last_frame = Instant::now();
                    }
                    if let Err(exit) = self.on_command(command, &outbox) {
                        return exit;
                    }
                }
                () = lease.wanted_back() => {
                    if !self.is_busy() {
                        return ExitReason::Unloaded(UnloadReason::Evicted);
                    }
                }
                () = self.backlog.next_deadline() => self.backlog.expire(&STILL_LOADING),
                () = sleep_until(last_frame + timeout), if applies => {
                    return ExitReason::Died(silence(timeout));
                }
            }
        }
    }

    fn died(&self) -> ExitReason {
        ExitReason::Died(match self.ready_since {
            Some(_) => "engine process exited unexpectedly".to_owned(),
            None => "engine process exited while loading the model; see its log lines".to_owned(),
        })
    }

    /// Between two events: submits the backlog, reports whether the engine is busy, and completes a
    /// pending unload.
    fn tick(&mut self, outbox: &Outbox, lease: &mut Lease) -> Result<(), ExitReason> {
        if self.ready_since.is_some() {
            match &self.pending_unload {
                Some(unload) if self.attempts.is_empty() => {
                    return Err(ExitReason::Unloaded(unload.reason));
                }
                Some(_) => {}
                None => {
                    while let Some(attempt) = self.backlog.pop() {
                        self.submit(attempt, outbox)?;
                    }
                }
            }
        }
        lease.set_busy(self.is_busy());
        Ok(())
    }

    /// Whether ending the engine now would delay or fail a request.
    fn is_busy(&self) -> bool {
        self.ready_since.is_none()
            || !self.attempts.is_empty()
            || !self.backlog.is_empty()
            || !self.commands.is_empty()
    }

    /// Maximum silence of the process, and whether it applies now. A loading process reports its
    /// progress.
    fn silence_timeout(&self) -> (Duration, bool) {
        match self.ready_since {
            None => (self.config.load_timeout(), true),
            Some(_) => (self.config.hang_timeout(), !self.attempts.is_empty()),
        }
    }

    fn on_message(&mut self, message: FromEngine, started: Instant) -> Result<(), ExitReason> {
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
                self.published.send_modify(|state| {
                    state.phase = Phase::Ready(facts);
                    state.last_load = Some(took);
                });
                self.observer.engine_ready(&self.model, took);
                for reply in self.load_waiters.drain(..) {
                    let _gone = reply.send(Ok(()));
                }
            }
            FromEngine::LoadFailed { reason } => return Err(ExitReason::LoadFailed(reason)),
            FromEngine::Accepted(attempt) => self.attempts.accepted(attempt)?,
            FromEngine::Admitted { attempt, at, dropped_turns } => {
                self.attempts.admitted(attempt, at, dropped_turns)?;
            }
            FromEngine::Vector { attempt, vector } => self.attempts.vector(attempt, vector)?,
            FromEngine::Step { report, pieces, logprobs, confidences } => {
                let report = StepReport { work: fan_out::merge_rows(report.work), ..report };
                self.observer.work(&self.model, &report.work);
                self.observer.step(&self.model, &report);
                self.attempts.step(pieces, logprobs, confidences)?;
            }
            FromEngine::Closed { attempt, outcome } => self.attempts.close(attempt, outcome),
        }
        Ok(())
    }

    fn on_command(&mut self, command: Command, outbox: &Outbox) -> Result<(), ExitReason> {
        let is_ready = self.ready_since.is_some();
        match command {
            Command::Submit(attempt) if is_ready && self.pending_unload.is_none() => {
                return self.submit(attempt, outbox);
            }
            Command::Submit(attempt) if is_ready || self.published.borrow().on_demand => {
                self.backlog.push(attempt, self.config.load_timeout());
            }
            Command::Submit(attempt) => attempt.refuse(&not_running()),
            Command::Cancel(attempt) if self.attempts.contains(attempt) => {
                return outbox.send(&ToEngine::Cancel(attempt));
            }
            Command::Cancel(attempt) => self.backlog.cancel(attempt),
            Command::Load(reply) if is_ready => {
                let _gone = reply.send(Ok(()));
            }
            Command::Load(reply) => self.load_waiters.push(reply),
            Command::Unload(unload) => self.begin_unload(unload),
        }
        Ok(())
    }

    fn submit(&mut self, attempt: NewAttempt, outbox: &Outbox) -> Result<(), ExitReason> {
        let frames = attempt.choices.iter().map(|choice| choice.frame.clone());
        let frames: Vec<Bytes> = frames.collect();
        self.attempts.open(attempt);
        frames.into_iter().try_for_each(|frame| outbox.forward(frame))
    }

    fn begin_unload(&mut self, unload: Unload) {
        if self.is_busy() && !unload.drain {
            let _gone = unload.reply.send(Err(ControlError::Busy));
            return;
        }
        let Unload { reason, reply, .. } = unload;
        let pending = PendingUnload { reason, replies: Vec::new() };
        self.pending_unload.get_or_insert(pending).replies.push(reply);
    }
}

impl From<Overrun> for ExitReason {
    fn from(overrun: Overrun) -> Self {
        Self::Died(overrun.to_string())
    }
}

fn silence(timeout: Duration) -> String {
    format!("no frame from the engine for {} ms", timeout.as_millis())
}

/// The queue of frames to the process. Never blocks.
struct Outbox(mpsc::Sender<Bytes>);

impl Outbox {
    fn send(&self, message: &ToEngine) -> Result<(), ExitReason> {
        let frame =
            protocol::encode(message).map_err(|error| ExitReason::Died(error.to_string()))?;
        self.forward(frame.into())
    }

    fn forward(&self, frame: Bytes) -> Result<(), ExitReason> {
        let full = |_| ExitReason::Died("engine outbox is full".to_owned());
        self.0.try_send(frame).map_err(full)
    }
}

type Wire = Framed<UnixStream, LengthDelimitedCodec>;

async fn write_frames(
    mut queued: mpsc::Receiver<Bytes>,
    mut sink: SplitSink<Wire, Bytes>,
) -> ExitReason {
    while let Some(frame) = queued.recv().await {
        if let Err(error) = sink.send(frame).await {
            return ExitReason::Died(format!("engine socket failed: {error}"));
        }
    }
    ExitReason::Died("command channel closed".to_owned())
}
