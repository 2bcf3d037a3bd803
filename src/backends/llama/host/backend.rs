//! The gateway's side of a local model: admission, and what its engine is told of a request. Never waits for the engine.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::answering::{Answer, CancelOnDrop, Progress};
use super::booking::Unserved;
use super::choices;
use super::config::Config;
use super::control::{self, Control};
use super::conversation::Conversation;
use super::observer::EngineObserver;
use super::parameters::{constraint, invalid, logprobs, sampling};
use super::protocol::{self, FrameError, Prompt, Submission, ToEngine};
use super::raw;
use super::state::{EngineState, Phase};
use crate::backends::backend::{Backend, BackendError, ErrorKind, EventStream, Health, Job};
use crate::backends::terms::Terms;
use crate::openai::{ChatRequest, Request};
use crate::units::AttemptId;

/// What a client is told to wait when the queue is full: about the time an answer takes.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(2);

/// A local model as the gateway sees it.
pub struct LlamaBackend {
    pub(super) model: Arc<str>,
    pub(super) config: Arc<Config>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) places: Arc<Semaphore>,
    pub(super) state: watch::Receiver<EngineState>,
    pub(super) observer: Arc<dyn EngineObserver>,
}

/// From handle to supervisor.
#[derive(Debug)]
pub(super) enum Command {
    Submit(Submit),
    Cancel(AttemptId),
    Load(control::Answer),
    Unload(control::Unload),
}

/// The choices of one attempt.
#[derive(Debug)]
pub(super) struct Submit {
    pub(super) choices: Vec<ChoiceSubmit>,
    pub(super) unserved: Unserved,
}

#[derive(Debug)]
pub(super) struct ChoiceSubmit {
    /// The id of its sequence.
    pub(super) attempt: AttemptId,
    /// The request's field that the engine reads, to name it in an error.
    pub(super) field: &'static str,
    /// The encoded `Submit` or `Embed` frame.
    pub(super) frame: Bytes,
    pub(super) progress: watch::Sender<Progress>,
    /// One of the engine's places, held until the engine is done with the choice.
    pub(super) place: OwnedSemaphorePermit,
}

impl Submit {
    /// Ends the attempt before the engine heard of it.
    pub(super) fn refuse(&self, kind: &ErrorKind) {
        for choice in &self.choices {
            choice.progress.send_modify(|progress| progress.end = Some(Err(kind.clone())));
        }
    }

    /// Forgets a choice; whether others are left.
    pub(super) fn goes_on_without(&mut self, attempt: AttemptId) -> bool {
        self.choices.retain(|choice| choice.attempt != attempt);
        !self.choices.is_empty()
    }
}

impl Backend for LlamaBackend {
    fn start(&self, job: Job) -> EventStream {
        match self.submit(&job) {
            Ok(answers) => {
                let answers = answers.into_iter().map(Answer::events).collect();
                choices::merge(answers, choices::of_each_prompt(&job.request))
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
        let count = choices::count(&job.request, self.config.admissions())?;
        // Several prompts wait for each other.
        let patience = patience * count.div_ceil(self.config.slots.max(1));
        let mut order = order(job, &self.config)?;
        let mut choices = Vec::with_capacity(count as usize);
        let mut answers = Vec::with_capacity(count as usize);
        for index in 0..count {
            let attempt = choices::sequence_of(job.attempt, index);
            if index > 0 {
                choices::renumber(&mut order, &job.request, index, attempt);
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

/// What the engine is told of a request.
fn order(job: &Job, config: &Config) -> Result<ToEngine, ErrorKind> {
    let attempt = job.attempt;
    Ok(match &*job.request {
        Request::Chat(request) => {
            ToEngine::Submit(submission(attempt, request, job.terms, config)?)
        }
        Request::Completion(request) => {
            ToEngine::Submit(raw::submission(attempt, request, job.terms)?)
        }
        Request::Embedding(request) => ToEngine::Embed(raw::embed(attempt, request, job.terms)),
    })
}

/// What the engine needs to know of a conversation, with OpenAI's defaults filled in.
fn submission(
    attempt: AttemptId,
    request: &ChatRequest,
    terms: Terms,
    config: &Config,
) -> Result<Submission, ErrorKind> {
    let output_limit = request.output_limit().unwrap_or(config.max_output_tokens);
    if output_limit == 0 {
        return Err(invalid("max_completion_tokens", "the output limit must be at least 1"));
    }
    Ok(Submission {
        attempt,
        prompt: Prompt::Chat(Conversation::of(request)?),
        sampling: sampling(&request.sampling()),
        output_limit,
        stop: request.stop.clone().map_or_else(Vec::new, |stop| stop.0),
        ignore_eos: request.ignore_eos.unwrap_or(false),
        logprobs: logprobs(request),
        constraint: constraint(request)?,
        terms,
    })
}

fn too_large(error: &FrameError, field: &str) -> ErrorKind {
    invalid(field, format!("the request is too large for the engine: {error}"))
}
