//! Main loop of the thread that owns the llama.cpp context: commands in, batches through, frames
//! out.
//!
//! Any llama.cpp error ends the process; the supervisor starts a new one.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, TryRecvError};

use super::error::EngineError;
use super::schedule::request::Request;
use crate::backends::llama::wire::outcome::{Counts, Outcome};
use crate::backends::llama::wire::protocol::{self, FrameError, FromEngine};
use crate::openai::FinishReason;
use crate::units::{AttemptId, MonotonicNs};

/// A worker that evaluates batches.
pub(crate) trait Worker {
    type Command;

    /// Whether no work is left.
    fn is_idle(&self) -> bool;

    fn take(&mut self, command: Self::Command) -> Result<(), FrameError>;

    /// Evaluates one batch that began at `start`. Returns when it ended, `None` if there was
    /// nothing to evaluate.
    fn step(&mut self, start: MonotonicNs) -> Result<Option<MonotonicNs>, EngineError>;

    fn outbox(&mut self) -> &mut Outbox;
}

/// Frames of the current step, written together at its end.
#[derive(Default)]
pub(crate) struct Outbox(Vec<u8>);

impl Outbox {
    pub(crate) fn push(&mut self, message: &FromEngine) -> Result<(), FrameError> {
        protocol::append_frame(&mut self.0, message)
    }

    pub(crate) fn close(&mut self, attempt: AttemptId, outcome: Outcome) -> Result<(), FrameError> {
        self.push(&FromEngine::Closed { attempt, outcome })
    }

    /// Ends an attempt whose answer has no tokens.
    pub(crate) fn finish_empty(
        &mut self,
        request: &Request,
        dropped_turns: u32,
    ) -> Result<(), FrameError> {
        let attempt = request.attempt;
        self.push(&FromEngine::Admitted { attempt, at: MonotonicNs::now(), dropped_turns })?;
        let prompt_tokens = u32::try_from(request.prompt.len()).unwrap_or(u32::MAX);
        let counts = Counts { prompt_tokens, ..Counts::default() };
        self.close(attempt, Outcome::Finished { reason: FinishReason::Length, counts })
    }

    fn flush(&mut self, socket: &mut UnixStream) -> Result<(), FrameError> {
        socket.write_all(&self.0)?;
        self.0.clear();
        Ok(())
    }
}

/// Evaluates step after step; blocks while idle. Returns when the reader thread has ended.
pub(crate) fn run<W: Worker>(
    mut worker: W,
    commands: &Receiver<W::Command>,
    socket: &mut UnixStream,
) -> Result<(), EngineError> {
    // End of the last step while busy, so that steps cover all busy time; `None` while idle.
    let mut busy_since = None;
    loop {
        if worker.is_idle() {
            worker.outbox().flush(socket)?;
            busy_since = None;
            let Ok(command) = commands.recv() else { return Ok(()) };
            worker.take(command)?;
        }
        let start = busy_since.unwrap_or_else(MonotonicNs::now);
        loop {
            match commands.try_recv() {
                Ok(command) => worker.take(command)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
        busy_since = worker.step(start)?.or(busy_since);
        worker.outbox().flush(socket)?;
    }
}
