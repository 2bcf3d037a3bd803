//! Open attempts of an engine process, and the effect of its messages on them.
//!
//! Invariant: every opened attempt is closed exactly once, also if the engine dies.

use std::collections::HashMap;
use std::sync::Arc;

use super::attempt_event::{AttemptEvent, EventSender, Output, Overrun};
use super::command::{Fields, NewAttempt, NewChoice, Place};
use super::refusal::error_kind;
use crate::backends::backend::{ErrorKind, TokenConfidence};
use crate::backends::llama::wire::logprobs::TokenLogprobs;
use crate::backends::llama::wire::outcome::Outcome;
use crate::backends::llama::wire::piece::Piece;
use crate::energy::OpenAttempt;
use crate::units::{AttemptId, MonotonicNs};

/// Choices sent to the engine and not closed.
#[derive(Default)]
pub(super) struct Attempts {
    open: HashMap<AttemptId, OpenChoice>,
}

struct OpenChoice {
    fields: Fields,
    events: EventSender,
    /// Output that is held until the text it belongs to is released.
    held: Output,
    _place: Place,
    /// Shared by the choices of an attempt, which closes with the last of them.
    guard: Arc<OpenAttempt>,
}

impl Attempts {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn contains(&self, attempt: AttemptId) -> bool {
        self.open.contains_key(&attempt)
    }

    /// Opens an attempt. Call before its frames are sent.
    pub(super) fn open(&mut self, attempt: NewAttempt) {
        let Some(guard) = attempt.guard.open() else { return };
        let guard = Arc::new(guard);
        for NewChoice { attempt, fields, events, place, .. } in attempt.choices {
            let (held, guard) = (Output::default(), Arc::clone(&guard));
            self.open.insert(attempt, OpenChoice { fields, events, held, _place: place, guard });
        }
    }

    pub(super) fn accepted(&self, attempt: AttemptId) -> Result<(), Overrun> {
        let choice = self.open.get(&attempt);
        choice.map_or(Ok(()), |choice| choice.events.send(AttemptEvent::Accepted))
    }

    pub(super) fn admitted(
        &self,
        attempt: AttemptId,
        at: MonotonicNs,
        dropped_turns: u32,
    ) -> Result<(), Overrun> {
        let Some(choice) = self.open.get(&attempt) else { return Ok(()) };
        // The first choice represents all: they were opened together.
        if attempt == choice.guard.id() {
            choice.guard.admitted(at);
        }
        choice.events.send(AttemptEvent::Admitted { dropped_turns })
    }

    pub(super) fn vector(&self, attempt: AttemptId, vector: Vec<f32>) -> Result<(), Overrun> {
        let choice = self.open.get(&attempt);
        choice.map_or(Ok(()), |choice| choice.events.send(AttemptEvent::Vector(vector)))
    }

    /// Distributes the output of one step, as one event per choice.
    pub(super) fn step(
        &mut self,
        pieces: Vec<(AttemptId, Piece)>,
        logprobs: Vec<(AttemptId, Vec<TokenLogprobs>)>,
        confidences: Vec<(AttemptId, TokenConfidence)>,
    ) -> Result<(), Overrun> {
        for (attempt, confidence) in confidences {
            if let Some(choice) = self.open.get_mut(&attempt) {
                choice.held.confidences.push(confidence);
            }
        }
        for (attempt, logprobs) in logprobs {
            if let Some(choice) = self.open.get_mut(&attempt) {
                choice.held.logprobs.extend(logprobs);
            }
        }
        // Pieces of a choice are consecutive.
        let mut pieces = pieces.into_iter().peekable();
        while let Some((attempt, piece)) = pieces.next() {
            let Some(choice) = self.open.get_mut(&attempt) else { continue };
            choice.held.pieces.push(piece);
            if pieces.peek().is_none_or(|(next, _)| *next != attempt) {
                choice.events.send(AttemptEvent::Output(std::mem::take(&mut choice.held)))?;
            }
        }
        Ok(())
    }

    pub(super) fn close(&mut self, attempt: AttemptId, outcome: Outcome) {
        let Some(choice) = self.open.remove(&attempt) else { return };
        let ahead = u32::try_from(self.open.len()).unwrap_or(u32::MAX);
        let end = match outcome {
            Outcome::Finished { reason, counts } => Ok((reason, counts)),
            Outcome::Refused(refusal) => Err(error_kind(refusal, choice.fields, ahead)),
            Outcome::Expired => Err(ErrorKind::DeadlineExceeded),
            // The stream of a cancelled attempt is gone.
            Outcome::Cancelled => return,
        };
        if !choice.held.is_empty() {
            let _overrun = choice.events.send(AttemptEvent::Output(choice.held));
        }
        choice.events.end(end);
    }

    /// Fails all attempts of an engine that has ended.
    pub(super) fn fail_all(&mut self) {
        for (_, choice) in self.open.drain() {
            choice.events.end(Err(ErrorKind::EngineDied));
        }
    }
}
