//! The backend of a local model: admits requests and submits them to the supervisor. Never waits
//! for the engine.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryFutureExt, stream};
use tokio::sync::{mpsc, watch};

use super::attempt_event;
use super::command::{
    CancelOnDrop, CancelSlot, Command, Fields, NewAttempt, NewChoice, Place, RETRY_AFTER,
};
use super::constraint;
use super::control::Control;
use super::fan_out;
use super::observer::EngineObserver;
use super::refusal::invalid;
use super::request::message;
use super::response::{Response, accepted};
use super::state::{EngineState, Phase};
use crate::backends::backend::{Backend, BackendError, ErrorKind, EventStream, Health, Job};
use crate::backends::llama::config::Config;
use crate::backends::llama::wire::protocol::{self, FrameError, ToEngine};
use crate::energy::PendingAttempt;
use crate::offload;
use crate::shares::{Client, Refusal, Share, Shares};
use crate::units::AttemptId;

/// A local model.
#[derive(Clone)]
pub struct LlamaBackend {
    pub(super) model: Arc<str>,
    pub(super) config: Arc<Config>,
    pub(super) commands: mpsc::Sender<Command>,
    /// One for each choice that the engine holds, running or queued.
    pub(super) places: Arc<Shares>,
    pub(super) state: watch::Receiver<EngineState>,
    pub(super) observer: Arc<dyn EngineObserver>,
}

impl Backend for LlamaBackend {
    fn start(&self, job: Job) -> EventStream {
        if !offload::is_large(job.body.len()) {
            return self.answer(&job);
        }
        // Each choice has its own copy of the prompt.
        let backend = self.clone();
        let answering = async move {
            let own = backend.clone();
            let answer = offload::run(job.body.len(), move || own.answer(&job)).await;
            let failed = || ErrorKind::Unavailable("the request could not be submitted".into());
            answer.unwrap_or_else(|| backend.failed(failed()))
        };
        stream::once(answering).flatten().boxed()
    }

    fn health(&self) -> Health {
        let state = self.state.borrow();
        let facts = match &state.phase {
            Phase::Ready(facts) => Some(facts),
            _ => None,
        };
        Health {
            ready: state.takes_requests(),
            ready_in: state.ready_in(),
            in_flight: u32::try_from(self.places.held()).unwrap_or(u32::MAX),
            slots: self.config.slots,
            context_tokens: Some(
                facts.map_or(self.config.context_tokens, |facts| facts.context_tokens),
            ),
        }
    }
}

impl LlamaBackend {
    fn answer(&self, job: &Job) -> EventStream {
        let responses = match self.submit(job) {
            Ok(responses) => responses,
            Err(kind) => return self.failed(kind),
        };
        let each = fan_out::of_each_prompt(&job.request);
        let merge = move |responses: Vec<Response>| {
            fan_out::merge(responses.into_iter().map(Response::events).collect(), each)
        };
        if responses.len() == 1 {
            return merge(responses);
        }
        accepted(responses).map_ok(merge).try_flatten_stream().boxed()
    }

    fn failed(&self, kind: ErrorKind) -> EventStream {
        let error = BackendError { model: Arc::clone(&self.model), kind };
        stream::iter([Err(error)]).boxed()
    }

    /// The same; one client may take `share` of the places.
    #[must_use]
    pub fn sharing(self, share: Share) -> Self {
        Self { places: Shares::new(self.config.admissions() as u64, share), ..self }
    }

    /// The engine's state, which changes with loads and restarts.
    pub fn state(&self) -> watch::Receiver<EngineState> {
        self.state.clone()
    }

    /// Control of loads and unloads.
    pub fn control(&self) -> Control {
        Control {
            commands: self.commands.clone(),
            state: self.state.clone(),
            load_timeout: self.config.load_timeout(),
        }
    }

    /// Submits the request, once for each choice.
    fn submit(&self, job: &Job) -> Result<Vec<Response>, ErrorKind> {
        let timeout = self.first_token_timeout()?;
        let most = usize::try_from(self.places.most_for_one()).unwrap_or(usize::MAX);
        let count = fan_out::count(&job.request, most)?;
        let client = job.terms.client;
        // Choices beyond the slots wait for each other.
        let timeout = timeout * count.div_ceil(self.config.slots.max(1));
        let mut message = message(job, &self.config)?;
        let prompt = job.request.prompt_field();
        let fields = Fields { prompt, constraint: constraint::field(&job.request) };
        let mut bytes = 0;
        let mut choices = Vec::with_capacity(count as usize);
        let mut responses = Vec::with_capacity(count as usize);
        for index in 0..count {
            let attempt = fan_out::sequence_of(job.attempt, index);
            if index > 0 {
                fan_out::renumber(&mut message, &job.request, index, attempt);
            }
            let (choice, response) = self.choice(attempt, client, &message, fields, timeout)?;
            // Each choice is a message of its own.
            bytes += choice.frame.len();
            if bytes > protocol::MAX_FRAME {
                return Err(too_large(&FrameError::TooLong { bytes }, fields.prompt));
            }
            choices.push(choice);
            responses.push(response);
        }
        let Ok(sender) = self.commands.clone().try_reserve_owned() else {
            return Err(self.overloaded());
        };
        let (observer, model) = (Arc::clone(&self.observer), Arc::clone(&self.model));
        let guard = PendingAttempt::new(observer, model, job.attempt);
        sender.send(Command::Submit(NewAttempt { choices, guard }));
        Ok(responses)
    }

    /// One choice, with its place and its channels.
    fn choice(
        &self,
        attempt: AttemptId,
        client: Client,
        message: &ToEngine,
        fields: Fields,
        first_token_timeout: Duration,
    ) -> Result<(NewChoice, Response), ErrorKind> {
        let taken = self.places.take(client, 1).map_err(|refusal| match refusal {
            Refusal::Full => self.overloaded(),
            Refusal::Share => ErrorKind::ClientShare { retry_after: RETRY_AFTER },
        })?;
        let frame = protocol::encode(message).map_err(|error| too_large(&error, fields.prompt))?;
        let (sender, events) = attempt_event::channel(message, &self.config);
        let Ok(cancel) = self.commands.clone().try_reserve_owned() else {
            return Err(self.overloaded());
        };
        let slot = CancelSlot::new(cancel);
        let place = Place { cancel: Arc::clone(&slot), _taken: taken };
        let choice = NewChoice { attempt, fields, frame: frame.into(), events: sender, place };
        let response = Response {
            model: Arc::clone(&self.model),
            events,
            received: Vec::new(),
            logprobs: matches!(message, ToEngine::Submit(one) if one.logprobs.is_some()),
            first_token_timeout,
            embeds: self.config.embedding,
            _cancel: CancelOnDrop { attempt, slot },
        };
        Ok((choice, response))
    }

    /// All places are taken.
    fn overloaded(&self) -> ErrorKind {
        let ahead = u32::try_from(self.config.admissions()).unwrap_or(u32::MAX);
        ErrorKind::Overloaded { retry_after: RETRY_AFTER, ahead }
    }

    /// Timeout for the first output of a request submitted now; includes a load if one is needed.
    fn first_token_timeout(&self) -> Result<Duration, ErrorKind> {
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
