//! The gateway's side of a local model: admission, and an answer's events from what the supervisor reports.
//!
//! Never waits for the engine: what it has said so far lies in a `watch` cell per attempt, so a slow client delays
//! nobody and holds at most its own answer in memory.

use std::sync::Arc;
use std::time::Duration;

use async_stream::try_stream;
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::answer::Piece;
use super::choices;
use super::config::Config;
use super::control::{self, Control};
use super::conversation::Conversation;
use super::footprint::Footprint;
use super::logprobs::TokenLogprobs;
use super::parameters::{constraint, invalid, logprobs, sampling, wire};
use super::protocol::{self, Counts, EngineFacts, FrameError, Prompt, Submission, ToEngine};
use super::raw;
use crate::backends::backend::{
    Backend, BackendError, ErrorKind, Event, EventStream, Health, Job, TokenConfidence,
};
use crate::backends::terms::Terms;
use crate::openai::chat::{CompletionTokensDetails, PromptTokensDetails};
use crate::openai::{ChatRequest, FinishReason, Request, Usage};
use crate::units::AttemptId;

/// What a client is told to wait when the queue is full: about the time an answer takes.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(2);

/// A local model as the gateway sees it.
#[derive(Debug)]
pub struct LlamaBackend {
    pub(super) model: Arc<str>,
    pub(super) config: Arc<Config>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) places: Arc<Semaphore>,
    pub(super) state: watch::Receiver<EngineState>,
}

/// What the engine is doing just now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineState {
    pub phase: Phase,
    /// The process, while there is one.
    pub pid: Option<u32>,
    /// How often it had to be started anew.
    pub restarts: u32,
    /// The present load, if there is one, was caused by requests: more of them may wait for it.
    pub on_demand: bool,
    /// Memory it takes once loaded, as its header and settings say.
    pub footprint: Footprint,
    /// Neither its file nor the config has a chat template: it only continues raw prompts.
    pub no_chat_template: bool,
    /// How long the last load took.
    pub last_load: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Loading {
        percent: u8,
    },
    Ready(EngineFacts),
    /// Not in memory; a request loads it.
    Unloaded,
    /// Not running, for this reason; it will be tried again.
    Down(Arc<str>),
    /// The gateway is shutting down.
    Stopped,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Loading { percent: 0 }
    }
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

/// An answer as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) admitted: bool,
    /// Turns left out so that the conversation fits.
    pub(super) dropped_turns: u32,
    /// One for each text embedded so far.
    pub(super) vectors: Vec<Vec<f32>>,
    pub(super) pieces: Vec<Piece>,
    /// Of the tokens of `pieces`, if they were asked for.
    pub(super) logprobs: Vec<TokenLogprobs>,
    /// Of the first tokens of the answer.
    pub(super) confidences: Vec<TokenConfidence>,
    pub(super) end: Option<Result<(FinishReason, Counts), ErrorKind>>,
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
        let mut submit = Submit { choices: Vec::with_capacity(count as usize) };
        let mut answers = Vec::with_capacity(count as usize);
        for index in 0..count {
            let attempt = choices::sequence_of(job.attempt, index);
            if index > 0 {
                choices::renumber(&mut order, &job.request, index, attempt);
            }
            let (choice, answer) =
                self.choice(attempt, &order, job.request.prompt_field(), patience)?;
            submit.choices.push(choice);
            answers.push(answer);
        }
        let Ok(sender) = self.commands.clone().try_reserve_owned() else {
            return Err(self.overloaded());
        };
        sender.send(Command::Submit(submit));
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

/// How much of an answer has been passed on.
#[derive(Clone, Copy, Default)]
struct Told {
    pieces: usize,
    logprobs: usize,
    confidences: usize,
}

/// One answer on its way.
struct Answer {
    model: Arc<str>,
    progress: watch::Receiver<Progress>,
    /// The answer is vectors.
    embeds: bool,
    first_token_timeout: Duration,
    cancel: CancelOnDrop,
}

impl Answer {
    fn events(mut self) -> EventStream {
        let model = Arc::clone(&self.model);
        let deadline = Instant::now() + self.first_token_timeout;
        let mut told = Told::default();
        let mut started = false;
        let embeds = self.embeds;
        let events = try_stream! {
            loop {
                let news = self.next(told, deadline).await?;
                if news.admitted && !started {
                    started = true;
                    yield Event::Started;
                    if news.dropped_turns > 0 {
                        yield Event::Truncated { turns: news.dropped_turns };
                    }
                }
                if !news.confidences.is_empty() {
                    told.confidences += news.confidences.len();
                    yield Event::Confidence(news.confidences);
                }
                if !news.logprobs.is_empty() {
                    told.logprobs += news.logprobs.len();
                    yield Event::Logprobs(wire(news.logprobs));
                }
                told.pieces += news.pieces.len();
                for piece in joined(news.pieces) {
                    yield event(piece);
                }
                if let Some(end) = news.end {
                    self.cancel.disarm();
                    let (reason, counts) = end?;
                    if embeds {
                        yield Event::Embeddings(news.vectors);
                    }
                    yield Event::Usage(usage(counts));
                    yield Event::Done(reason);
                    return;
                }
            }
        };
        events
            .map(move |event| {
                event.map_err(|kind| BackendError { model: Arc::clone(&model), kind })
            })
            .boxed()
    }

    /// Waits for something that was not told yet.
    async fn next(&mut self, told: Told, deadline: Instant) -> Result<Progress, ErrorKind> {
        let silent = told.pieces == 0 && self.progress.borrow().vectors.is_empty();
        let changed = if silent {
            timeout_at(deadline, self.progress.changed())
                .await
                .map_err(|_| ErrorKind::Timeout { after: self.first_token_timeout })?
        } else {
            self.progress.changed().await
        };
        // The supervisor always leaves an end; without one it was dropped with everything it owned.
        changed.map_err(|_| ErrorKind::EngineDied)?;
        let progress = self.progress.borrow_and_update();
        Ok(Progress {
            admitted: progress.admitted,
            dropped_turns: progress.dropped_turns,
            // Vectors are of use only together.
            vectors: progress.end.as_ref().map_or_else(Vec::new, |_| progress.vectors.clone()),
            pieces: progress.pieces[told.pieces..].to_vec(),
            logprobs: progress.logprobs[told.logprobs..].to_vec(),
            confidences: progress.confidences[told.confidences..].to_vec(),
            end: progress.end.clone(),
        })
    }
}

/// Pieces that came together, in as few as say the same.
fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::with_capacity(1);
    for piece in pieces {
        let left = match joined.last_mut() {
            Some(last) => last.join(piece),
            None => Some(piece),
        };
        joined.extend(left);
    }
    joined
}

fn event(piece: Piece) -> Event {
    match piece {
        Piece::Text(text) => Event::Text(text),
        Piece::Reasoning(text) => Event::Reasoning(text),
        Piece::Call { index, name } => {
            let id = format!("call_{}", uuid::Uuid::now_v7().simple());
            Event::ToolCall { index, id, name }
        }
        Piece::Arguments { index, text } => Event::ToolArguments { index, piece: text },
    }
}

/// Tells the supervisor that nobody wants the answer any more.
struct CancelOnDrop {
    attempt: AttemptId,
    command: Option<mpsc::OwnedPermit<Command>>,
}

impl CancelOnDrop {
    /// The answer has ended by itself.
    fn disarm(&mut self) {
        self.command = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(command) = self.command.take() {
            command.send(Command::Cancel(self.attempt));
        }
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

fn usage(counts: Counts) -> Usage {
    let (prompt_tokens, completion_tokens) =
        (u64::from(counts.prompt_tokens), u64::from(counts.completion_tokens));
    Usage {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens + completion_tokens,
        prompt_tokens_details: Some(PromptTokensDetails {
            cached_tokens: Some(u64::from(counts.cached_tokens)),
        }),
        completion_tokens_details: Some(CompletionTokensDetails {
            reasoning_tokens: Some(u64::from(counts.reasoning_tokens)),
        }),
    }
}
