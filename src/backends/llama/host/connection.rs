//! What is said between a supervisor and one engine process: frames both ways, until one side has enough.

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

use super::command::{Command, ControlError, RETRY_AFTER, Submit, Unload};
use super::fan_out;
use super::state::{Phase, UnloadReason};
use super::supervisor_state::{Ended, Leaving, Link, not_running};
use crate::backends::backend::ErrorKind;
use crate::backends::llama::memory::budget::Claim;
use crate::backends::llama::wire::protocol::{self, FromEngine, MAX_FRAME, ToEngine};

const STILL_LOADING: ErrorKind =
    ErrorKind::NotLoaded { reason: "it is still loading", retry_after: RETRY_AFTER };

impl Link {
    /// Speaks with the process until one side has enough. Dropping the socket on return tells it to leave.
    pub(super) async fn converse(
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
        if let Err(ended) =
            outbox.send(&ToEngine::Load(self.config.settings(gguf, claim.threads())))
        {
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
                    let Some(frame) = frame else { return self.died() };
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

    fn died(&self) -> Ended {
        Ended::Died(match self.ready_since {
            Some(_) => "it died".to_owned(),
            None => "it died while it loaded the model; its log tells more".to_owned(),
        })
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
                self.observer.step(&self.model, &fan_out::joined(report));
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
                self.waiting.cancel(attempt);
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
        self.attempts.open(submit);
        frames.into_iter().try_for_each(|frame| outbox.forward(frame))
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
