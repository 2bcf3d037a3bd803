//! Queues of requests in preparation. A request waits only behind others of its kind, so that an
//! expensive one does not delay a cheap one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use parking_lot::{Condvar, Mutex};

use super::interrupt::Interrupt;
use crate::backends::llama::engine::command::EngineCommand;
use crate::backends::llama::wire::outcome::Outcome;
use crate::backends::llama::wire::protocol::{Embed, Prompt, Submission};
use crate::openai::Input;
use crate::units::{AttemptId, MonotonicNs};

/// Text that takes noticeable time to render and to tokenise.
const LONG_BYTES: usize = 64 << 10;

/// A request to prepare.
pub(super) enum Job {
    Submit(Box<Submission>),
    Embed(Embed),
}

/// Kinds of requests by what they cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Rendered and tokenised in milliseconds.
    Short,
    Long,
    /// Needs a grammar.
    Constrained,
    /// Needs a grammar, and takes longer than a usual request.
    Hard,
}

impl Lane {
    /// Where a request goes on that takes too long here; the last lane is its own.
    pub(super) fn slower(self) -> Self {
        match self {
            Self::Short | Self::Long => Self::Long,
            Self::Constrained | Self::Hard => Self::Hard,
        }
    }

    pub(super) fn of(job: &Job) -> Self {
        let (constrained, bytes) = match job {
            Job::Submit(submission) => {
                let (tools, bytes) = match &submission.prompt {
                    Prompt::Chat(conversation) => {
                        (conversation.tools.is_some(), conversation.bytes())
                    }
                    Prompt::Raw(input) => (false, bytes(input)),
                };
                (tools || submission.constraint.is_some(), bytes)
            }
            Job::Embed(embed) => (false, embed.inputs.iter().map(bytes).sum()),
        };
        match (constrained, bytes) {
            (true, _) => Self::Constrained,
            (false, bytes) if bytes > LONG_BYTES => Self::Long,
            (false, _) => Self::Short,
        }
    }
}

fn bytes(input: &Input) -> usize {
    match input {
        Input::Text(text) => text.len(),
        Input::Tokens(tokens) => size_of_val(tokens.as_slice()),
    }
}

impl Job {
    pub(super) fn attempt(&self) -> AttemptId {
        match self {
            Self::Submit(submission) => submission.attempt,
            Self::Embed(embed) => embed.attempt,
        }
    }

    fn deadline(&self) -> Option<MonotonicNs> {
        match self {
            Self::Submit(submission) => submission.terms.deadline,
            Self::Embed(embed) => embed.terms.deadline,
        }
    }
}

/// More commands than the gateway may send.
#[derive(Debug, thiserror::Error)]
#[error("engine queue overflow")]
pub(crate) struct Overflow;

/// The queues, and the way of their results to the thread that evaluates.
pub(super) struct Lanes {
    state: Mutex<State>,
    arrived: Condvar,
    commands: SyncSender<EngineCommand>,
    most: usize,
}

#[derive(Default)]
struct State {
    queues: [VecDeque<Job>; 4],
    /// Requests that are queued or being prepared.
    interrupts: HashMap<AttemptId, Arc<Interrupt>>,
}

impl Lanes {
    /// `most` bounds the requests in preparation.
    pub(super) fn new(commands: SyncSender<EngineCommand>, most: usize) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), commands, most }
    }

    pub(super) fn push(&self, lane: Lane, job: Job) -> Result<(), Overflow> {
        let mut state = self.state.lock();
        if state.interrupts.len() >= self.most {
            return Err(Overflow);
        }
        let interrupt = Arc::new(Interrupt::at(job.deadline()));
        state.interrupts.insert(job.attempt(), interrupt);
        state.queues[lane as usize].push_back(job);
        self.arrived.notify_all();
        Ok(())
    }

    /// Says that a request is being prepared.
    pub(super) fn report(&self) {
        // A full queue is report enough.
        let _full = self.commands.try_send(EngineCommand::Preparing);
    }

    /// Moves a request that was begun to another lane.
    pub(super) fn defer(&self, lane: Lane, job: Job) {
        self.state.lock().queues[lane as usize].push_back(job);
        self.arrived.notify_all();
    }

    /// The next request of a lane, and its interrupt.
    pub(super) fn next(&self, lane: Lane) -> (Job, Arc<Interrupt>) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.queues[lane as usize].pop_front() {
                let interrupt = state.interrupts.entry(job.attempt()).or_default();
                let interrupt = Arc::clone(interrupt);
                return (job, interrupt);
            }
            self.arrived.wait(&mut state);
        }
    }

    /// Hands a prepared request on. Under the lock: a cancellation comes either before, and
    /// replaces the command, or after it.
    pub(super) fn done(&self, attempt: AttemptId, command: EngineCommand) -> Result<(), Overflow> {
        let mut state = self.state.lock();
        let interrupt = state.interrupts.remove(&attempt);
        let stopped = interrupt.and_then(|interrupt| interrupt.check().err());
        let command = match stopped {
            Some(stopped) => EngineCommand::Close(attempt, stopped.into()),
            None => command,
        };
        self.commands.try_send(command).map_err(|_| Overflow)
    }

    /// Cancels an attempt: at once if it is queued, at the next look if it is being prepared; the
    /// thread that evaluates is asked otherwise.
    pub(super) fn cancel(&self, attempt: AttemptId) -> Result<(), Overflow> {
        let mut state = self.state.lock();
        let Some(interrupt) = state.interrupts.get(&attempt) else {
            return self.commands.try_send(EngineCommand::Cancel(attempt)).map_err(|_| Overflow);
        };
        interrupt.cancel();
        let queued = state.queues.iter_mut().find_map(|queue| {
            let place = queue.iter().position(|job| job.attempt() == attempt)?;
            queue.remove(place)
        });
        if queued.is_none() {
            return Ok(());
        }
        state.interrupts.remove(&attempt);
        let closed = EngineCommand::Close(attempt, Outcome::Cancelled);
        self.commands.try_send(closed).map_err(|_| Overflow)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use super::*;
    use crate::backends::scheduling_options::SchedulingOptions;

    fn lanes() -> (Lanes, Receiver<EngineCommand>) {
        let (commands, received) = sync_channel(8);
        (Lanes::new(commands, 2), received)
    }

    fn embed(attempt: u64) -> Job {
        let inputs = vec![Input::Text("a".to_owned())];
        Job::Embed(Embed {
            attempt: AttemptId(attempt),
            inputs,
            dimensions: None,
            terms: SchedulingOptions::default(),
        })
    }

    #[test]
    fn a_cancellation_reaches_an_attempt_wherever_it_is() {
        let (lanes, received) = lanes();
        let cancelled = |attempt: u64| match received.try_recv() {
            Ok(EngineCommand::Close(closed, Outcome::Cancelled)) => closed.0 == attempt,
            _ => false,
        };
        lanes.push(Lane::Short, embed(1)).unwrap();
        lanes.push(Lane::Short, embed(2)).unwrap();
        assert!(lanes.push(Lane::Short, embed(3)).is_err(), "two at most");
        lanes.cancel(AttemptId(2)).unwrap();
        assert!(cancelled(2), "queued: at once");
        let (_, interrupt) = lanes.next(Lane::Short);
        lanes.cancel(AttemptId(1)).unwrap();
        assert!(interrupt.check().is_err() && received.try_recv().is_err(), "it is being prepared");
        lanes.done(AttemptId(1), EngineCommand::Cancel(AttemptId(9))).unwrap();
        assert!(cancelled(1), "instead of its command");
        lanes.cancel(AttemptId(1)).unwrap();
        assert!(matches!(received.try_recv(), Ok(EngineCommand::Cancel(AttemptId(1)))));
    }

    #[test]
    fn long_texts_and_grammars_have_lanes_of_their_own() {
        let mut long = embed(1);
        let Job::Embed(embed) = &mut long else { unreachable!() };
        embed.inputs.push(Input::Text("a".repeat(LONG_BYTES)));
        assert_eq!((Lane::of(&long), Lane::of(&self::embed(1))), (Lane::Long, Lane::Short));
    }
}
