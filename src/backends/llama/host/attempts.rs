//! The attempts an engine process is working on: what its frames mean to each of them.
//!
//! Owns the promise that every opened attempt is closed exactly once, whatever happens to the engine.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, watch};

use super::answer::Piece;
use super::answering::Progress;
use super::booking::Opened;
use super::handle::{ChoiceSubmit, Submit};
use super::logprobs::TokenLogprobs;
use super::parameters::invalid;
use super::protocol::{Outcome, Refusal};
use super::scheduler::Rejection;
use crate::backends::backend::{ErrorKind, TokenConfidence, UNSUPPORTED_ENDPOINT};
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

/// `field` of the request is what the engine read; `ahead` others were there.
fn error_kind(refusal: Refusal, field: &str, ahead: u32) -> ErrorKind {
    match refusal {
        Refusal::Scheduler(Rejection::QueueFull) => {
            ErrorKind::Overloaded { retry_after: super::handle::RETRY_AFTER, ahead }
        }
        Refusal::Scheduler(Rejection::ContextExceeded { prompt_tokens, context_tokens }) => {
            ErrorKind::ContextExceeded { prompt_tokens, context_tokens }
        }
        Refusal::Scheduler(empty @ Rejection::EmptyPrompt) => invalid(field, empty.to_string()),
        Refusal::Grammar(error) => {
            invalid("response_format", format!("`response_format` cannot be kept to: {error}"))
        }
        Refusal::Tool { place, error } => {
            let param = format!("tools[{place}].function.parameters");
            invalid(&param, format!("`{param}` cannot be kept to, as `strict` demands: {error}"))
        }
        Refusal::UnknownBias { token, vocabulary } => invalid(
            "logit_bias",
            format!("`logit_bias` names token {token}; the model's vocabulary has {vocabulary}"),
        ),
        Refusal::NoChatTemplate => ErrorKind::InvalidRequest {
            message: "the model has no chat template: it continues raw prompts (/v1/completions)"
                .to_owned(),
            param: Some("model".to_owned()),
            code: Some(UNSUPPORTED_ENDPOINT.to_owned()),
        },
        Refusal::Template(reason) => {
            invalid(field, format!("the model's chat template refused the messages: {reason}"))
        }
        Refusal::UnknownToken { token, vocabulary } => {
            invalid(field, format!("there is no token {token}: the model knows {vocabulary}"))
        }
        Refusal::Dimensions { most } => {
            invalid("dimensions", format!("`dimensions`: the model's vectors have {most}"))
        }
        Refusal::OtherTask => invalid("model", "the model answers another kind of request"),
    }
}
