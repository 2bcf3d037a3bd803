//! The attempts an engine process is working on: what its frames mean to each of them.
//!
//! Owns the promise that every opened attempt is closed exactly once, whatever happens to the engine.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, watch};

use super::attempt_guard::Opened;
use super::command::{ChoiceSubmit, Submit};
use super::progress::Progress;
use super::refusal::error_kind;
use crate::backends::backend::{ErrorKind, TokenConfidence};
use crate::backends::llama::wire::logprobs::TokenLogprobs;
use crate::backends::llama::wire::outcome::Outcome;
use crate::backends::llama::wire::piece::Piece;
use crate::units::{AttemptId, MonotonicNs};

/// Attempts that were sent to the engine and not closed.
#[derive(Default)]
pub(super) struct Attempts {
    open: HashMap<AttemptId, OpenAttempt>,
}

struct OpenAttempt {
    field: &'static str,
    progress: watch::Sender<Progress>,
    _place: OwnedSemaphorePermit,
    /// Shared by the choices of one attempt: it closes with the last of them.
    opened: Arc<Opened>,
}

impl Attempts {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn contains(&self, attempt: AttemptId) -> bool {
        self.open.contains_key(&attempt)
    }

    /// Takes the choices of one attempt into the books. Must come before the engine hears of them.
    pub(super) fn open(&mut self, submit: Submit) {
        let Some(opened) = submit.unserved.open() else { return };
        let opened = Arc::new(opened);
        for ChoiceSubmit { attempt, field, progress, place, .. } in submit.choices {
            let opened = Arc::clone(&opened);
            self.open.insert(attempt, OpenAttempt { field, progress, _place: place, opened });
        }
    }

    pub(super) fn admitted(&self, attempt: AttemptId, at: MonotonicNs, dropped_turns: u32) {
        let Some(open) = self.open.get(&attempt) else { return };
        // The first choice stands for all: they were opened together.
        if attempt == open.opened.attempt() {
            open.opened.admitted(at);
        }
        self.update(attempt, |progress| {
            progress.admitted = true;
            progress.dropped_turns = dropped_turns;
        });
    }

    pub(super) fn vector(&self, attempt: AttemptId, vector: Vec<f32>) {
        self.update(attempt, |progress| progress.vectors.push(vector));
    }

    pub(super) fn piece(&self, attempt: AttemptId, piece: Piece) {
        self.update(attempt, |progress| progress.pieces.push(piece));
    }

    /// Comes before the text of the same token, and is told to the answer with it.
    pub(super) fn confidence(&self, attempt: AttemptId, confidence: TokenConfidence) {
        if let Some(open) = self.open.get(&attempt) {
            open.progress.send_if_modified(|progress| {
                progress.confidences.push(confidence);
                false
            });
        }
    }

    /// Comes before the text of the same tokens, and is told to the answer with it.
    pub(super) fn logprobs(&self, attempt: AttemptId, logprobs: Vec<TokenLogprobs>) {
        if let Some(open) = self.open.get(&attempt) {
            open.progress.send_if_modified(|progress| {
                progress.logprobs.extend(logprobs);
                false
            });
        }
    }

    pub(super) fn close(&mut self, attempt: AttemptId, outcome: Outcome) {
        let Some(open) = self.open.remove(&attempt) else { return };
        let ahead = u32::try_from(self.open.len()).unwrap_or(u32::MAX);
        let end = match outcome {
            Outcome::Finished { reason, counts } => Ok((reason, counts)),
            Outcome::Refused(refusal) => Err(error_kind(refusal, open.field, ahead)),
            Outcome::Expired => Err(ErrorKind::DeadlineExceeded),
            // Nobody listens to a cancelled attempt.
            Outcome::Cancelled => return,
        };
        open.progress.send_modify(|progress| progress.end = Some(end));
    }

    /// The engine is gone, and with it everything it was working on.
    pub(super) fn fail_all(&mut self) {
        for (_, open) in self.open.drain() {
            open.progress.send_modify(|progress| progress.end = Some(Err(ErrorKind::EngineDied)));
        }
    }

    fn update(&self, attempt: AttemptId, change: impl FnOnce(&mut Progress)) {
        if let Some(open) = self.open.get(&attempt) {
            open.progress.send_modify(change);
        }
    }
}
