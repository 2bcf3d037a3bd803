//! The gateway's side of a local model: admission, and what its engine is told of a request. Never waits for the engine.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::sync::{Semaphore, mpsc, watch};

use super::attempt_guard::Unserved;
use super::command::{CancelOnDrop, ChoiceSubmit, Command, RETRY_AFTER, Submit};
use super::control::Control;
use super::fan_out;
use super::observer::EngineObserver;
use super::progress::Progress;
use super::refusal::invalid;
use super::request::order;
use super::response::Answer;
use super::state::{EngineState, Phase};
use crate::backends::backend::{Backend, BackendError, ErrorKind, EventStream, Health, Job};
use crate::backends::llama::config::Config;
use crate::backends::llama::wire::protocol::{self, FrameError, ToEngine};
use crate::units::AttemptId;

/// A local model as the gateway sees it.
pub struct LlamaBackend {
    pub(super) model: Arc<str>,
    pub(super) config: Arc<Config>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) places: Arc<Semaphore>,
    pub(super) state: watch::Receiver<EngineState>,
    pub(super) observer: Arc<dyn EngineObserver>,
}

impl Backend for LlamaBackend {
    fn start(&self, job: Job) -> EventStream {
        match self.submit(&job) {
            Ok(answers) => {
                let answers = answers.into_iter().map(Answer::events).collect();
                fan_out::merge(answers, fan_out::of_each_prompt(&job.request))
            }
            Err(kind) => {
                let error = BackendError { model: Arc::clone(&self.model), kind };
                stream::iter([Err(error)]).boxed()
            }
        }
    }

    fn health(&self) -> Health {
        let in_flight = self.config.admissions() - self.places.available_permits();
        let state = self.state.borrow();
        let facts = match &state.phase {
            Phase::Ready(facts) => Some(facts),
            _ => None,
        };
        Health {
            ready: state.takes_requests(),
            in_flight: u32::try_from(in_flight).unwrap_or(u32::MAX),
            slots: self.config.slots,
            context_tokens: Some(
                facts.map_or(self.config.context_tokens, |facts| facts.context_tokens),
            ),
        }
    }
}

impl LlamaBackend {
    /// The engine's state, to watch it load or count its restarts.
    pub fn state(&self) -> watch::Receiver<EngineState> {
        self.state.clone()
    }

    /// Loads and unloads it by hand.
    pub fn control(&self) -> Control {
        Control {
            commands: self.commands.clone(),
            state: self.state.clone(),
            load_timeout: self.config.load_timeout(),
        }
    }

    /// Sends the request to the engine, once for each choice.
    fn submit(&self, job: &Job) -> Result<Vec<Answer>, ErrorKind> {
        let patience = self.patience()?;
        let count = fan_out::count(&job.request, self.config.admissions())?;
        // Several prompts wait for each other.
        let patience = patience * count.div_ceil(self.config.slots.max(1));
        let mut order = order(job, &self.config)?;
        let mut choices = Vec::with_capacity(count as usize);
        let mut answers = Vec::with_capacity(count as usize);
        for index in 0..count {
            let attempt = fan_out::sequence_of(job.attempt, index);
            if index > 0 {
                fan_out::renumber(&mut order, &job.request, index, attempt);
            }
            let (choice, answer) =
                self.choice(attempt, &order, job.request.prompt_field(), patience)?;
            choices.push(choice);
            answers.push(answer);
        }
        let Ok(sender) = self.commands.clone().try_reserve_owned() else {
            return Err(self.overloaded());
        };
        let (observer, model) = (Arc::clone(&self.observer), Arc::clone(&self.model));
        let unserved = Unserved::new(observer, model, job.attempt);
        sender.send(Command::Submit(Submit { choices, unserved }));
        Ok(answers)
    }

    /// One choice and the place that it needs.
    fn choice(
        &self,
        attempt: AttemptId,
        order: &ToEngine,
        field: &'static str,
        patience: Duration,
    ) -> Result<(ChoiceSubmit, Answer), ErrorKind> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(self.overloaded());
        };
        let frame = protocol::encode(order).map_err(|error| too_large(&error, field))?;
        let (progress, watched) = watch::channel(Progress::default());
        // The cancellation's place in the channel is reserved now, so that it can be sent from a destructor.
        let Ok(cancel) = self.commands.clone().try_reserve_owned() else {
            return Err(self.overloaded());
        };
        let choice = ChoiceSubmit { attempt, field, frame: frame.into(), progress, place };
        let answer = Answer {
            model: Arc::clone(&self.model),
            progress: watched,
            first_token_timeout: patience,
            embeds: self.config.embedding,
            cancel: CancelOnDrop { attempt, command: Some(cancel) },
        };
        Ok((choice, answer))
    }

    /// Every place is taken.
    fn overloaded(&self) -> ErrorKind {
        let ahead = u32::try_from(self.config.admissions()).unwrap_or(u32::MAX);
        ErrorKind::Overloaded { retry_after: RETRY_AFTER, ahead }
    }

    /// Longest wait for the first text of an answer begun now; a load that comes first has its own time.
    fn patience(&self) -> Result<Duration, ErrorKind> {
        let first_token = self.config.first_token_timeout();
        let state = self.state.borrow();
        let reason = match &state.phase {
            Phase::Ready(_) => return Ok(first_token),
            Phase::Unloaded => return Ok(first_token + self.config.load_timeout()),
            Phase::Loading { .. } if state.on_demand => {
                return Ok(first_token + self.config.load_timeout());
            }
            Phase::Loading { percent } => format!("it is loading ({percent} %)"),
            Phase::Down(reason) => reason.to_string(),
            Phase::Stopped => "it is shutting down".to_owned(),
        };
        Err(ErrorKind::Unavailable(reason))
    }
}

fn too_large(error: &FrameError, field: &str) -> ErrorKind {
    invalid(field, format!("the request is too large for the engine: {error}"))
}
