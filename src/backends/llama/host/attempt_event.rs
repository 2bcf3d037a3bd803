//! The channel from the supervisor to the response stream of one choice.
//!
//! Bounded without blocking: an engine sends at most one message with output per token, and one per
//! vector, so a channel with room for these, acceptance,
//! admission and end never fills up. A slow client delays
//! nothing and holds at most its own answer in memory.

use tokio::sync::mpsc::{self, error::TrySendError};

use crate::backends::backend::{ErrorKind, TokenConfidence};
use crate::backends::llama::config::Config;
use crate::backends::llama::wire::logprobs::TokenLogprobs;
use crate::backends::llama::wire::outcome::Counts;
use crate::backends::llama::wire::piece::Piece;
use crate::backends::llama::wire::protocol::ToEngine;
use crate::openai::FinishReason;

/// An event of one choice.
#[derive(Debug)]
pub(super) enum AttemptEvent {
    /// The engine will not refuse it any more.
    Accepted,
    /// It has a slot; `dropped_turns` did not fit.
    Admitted {
        dropped_turns: u32,
    },
    Output(Output),
    /// The vector of the next text.
    Vector(Vec<f32>),
    /// The last event.
    End(End),
}

pub(super) type End = Result<(FinishReason, Counts), ErrorKind>;

/// Output of one step, or of several in a row.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) pieces: Vec<Piece>,
    /// Of the tokens of `pieces`, if requested.
    pub(super) logprobs: Vec<TokenLogprobs>,
    /// Of the first tokens of the answer.
    pub(super) confidences: Vec<TokenConfidence>,
}

impl Output {
    pub(super) fn append(&mut self, mut next: Self) {
        self.pieces.append(&mut next.pieces);
        self.logprobs.append(&mut next.logprobs);
        self.confidences.append(&mut next.confidences);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.logprobs.is_empty() && self.confidences.is_empty()
    }
}

/// The engine sent more events than the request allows.
#[derive(Debug, thiserror::Error)]
#[error("the engine sent more output than the request allows")]
pub(super) struct Overrun;

/// The supervisor's end. Never blocks.
#[derive(Debug)]
pub(super) struct EventSender(mpsc::Sender<AttemptEvent>);

pub(super) type EventReceiver = mpsc::Receiver<AttemptEvent>;

/// A channel with room for all events of the choice that `message` submits.
pub(super) fn channel(message: &ToEngine, config: &Config) -> (EventSender, EventReceiver) {
    let (sender, receiver) = mpsc::channel(events_max(message, config));
    (EventSender(sender), receiver)
}

/// Acceptance, admission, held output and end, and one event per token or vector.
fn events_max(message: &ToEngine, config: &Config) -> usize {
    let outputs = match message {
        ToEngine::Submit(submission) => submission.output_limit.min(config.context_tokens) as usize,
        ToEngine::Embed(embed) => embed.inputs.len(),
        ToEngine::Load(_) | ToEngine::Cancel(_) => 0,
    };
    outputs.saturating_add(4)
}

impl EventSender {
    /// Drops the event if the client has gone.
    pub(super) fn send(&self, event: AttemptEvent) -> Result<(), Overrun> {
        match self.0.try_send(event) {
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
            Err(TrySendError::Full(_)) => Err(Overrun),
        }
    }

    /// Sends the last event. After an overrun the receiver sees a closed channel instead.
    pub(super) fn end(&self, end: End) {
        let _overrun = self.send(AttemptEvent::End(end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::llama::wire::protocol::Embed;
    use crate::backends::scheduling_options::SchedulingOptions;
    use crate::openai::Input;
    use crate::units::AttemptId;

    #[test]
    fn a_channel_holds_every_event_that_the_request_allows_and_no_more() {
        let inputs = ["a", "b"].map(|text| Input::Text(text.to_owned())).to_vec();
        let embed = Embed {
            attempt: AttemptId(1),
            inputs,
            dimensions: None,
            terms: SchedulingOptions::default(),
        };
        let (sender, receiver) = channel(&ToEngine::Embed(embed), &Config::default());
        sender.send(AttemptEvent::Accepted).unwrap();
        sender.send(AttemptEvent::Admitted { dropped_turns: 0 }).unwrap();
        for _ in 0..2 {
            sender.send(AttemptEvent::Vector(vec![1.0])).unwrap();
        }
        sender.send(AttemptEvent::Output(Output::default())).unwrap();
        sender.send(AttemptEvent::End(Err(ErrorKind::EngineDied))).unwrap();
        assert!(sender.send(AttemptEvent::Vector(vec![1.0])).is_err());
        drop(receiver);
        assert!(sender.send(AttemptEvent::Vector(vec![1.0])).is_ok(), "the client has gone");
    }
}
