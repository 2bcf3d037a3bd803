//! Any OpenAI-compatible endpoint as a backend: the request goes there nearly as it came, the
//! answer comes back as it is.
//!
//! Makes one attempt; trying elsewhere is the gateway's decision. Sees none of the client's
//! headers, so the client's own key cannot reach the upstream.

mod answer;
mod breaker;
mod config;
mod failure;
#[cfg(fuzzing)]
pub mod fuzzing;
mod key;
mod plain;
mod request;
mod sse;
mod transport;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_stream::try_stream;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use parking_lot::{Mutex, MutexGuard};
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{timeout, timeout_at};

use self::answer::Transcript;
use self::breaker::{Admission, Breaker, Outcome};
pub use self::config::{BaseUrlError, Config, DeploymentConfig};
pub use self::key::{ApiKey, InvalidApiKey};
use self::transport::{Response, Target, Transport};
use super::backend::{
    Backend, BackendError, ErrorKind, ErrorSource, Event, EventStream, Health, Job, RequestFault,
};
use crate::openai::Request;

/// Most bytes of a whole answer.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// Most bytes of an error body.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// How long a client should wait when every place is taken: answers take seconds.
const OVERLOAD_RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long to wait for the end of a body after `[DONE]`: a connection read to its end can be used
/// again.
const END_OF_BODY_WAIT: Duration = Duration::from_millis(20);

/// How long to wait for the usage, or for `[DONE]`, once every choice has ended.
const USAGE_WAIT: Duration = Duration::from_secs(2);

/// One model of one OpenAI-compatible endpoint.
#[derive(Debug)]
pub struct CloudBackend(Arc<Upstream>);

/// Why a backend could not be built.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Config(#[from] BaseUrlError),
    /// No system certificates, or no TLS at all.
    #[error("the HTTP client could not be built: {0}")]
    Client(#[from] reqwest::Error),
}

impl CloudBackend {
    /// `name` is the model's name in the config; `key` what its `api_key_env` holds, if anything.
    pub fn new(name: Arc<str>, config: Config, key: Option<&ApiKey>) -> Result<Self, SetupError> {
        let endpoints = config.endpoints()?;
        let target = |url| Target::new(url, key.map(ApiKey::authorization));
        let targets = Targets {
            chat: target(&endpoints.chat)?,
            completions: target(&endpoints.completions)?,
            embeddings: target(&endpoints.embeddings)?,
        };
        Ok(Self(Arc::new(Upstream {
            transport: Transport::new(&endpoints.chat, &config)?,
            model: config.model.clone().unwrap_or_else(|| name.to_string()),
            name,
            targets,
            has_key: key.is_some(),
            places: Arc::new(Semaphore::new(config.max_in_flight as usize)),
            breaker: Mutex::new(Breaker::new()),
            config,
        })))
    }

    /// The variable that should hold the key and does not.
    pub fn missing_key(&self) -> Option<&str> {
        self.0.missing_key()
    }
}

impl Backend for CloudBackend {
    fn start(&self, job: Job) -> EventStream {
        let name = Arc::clone(&self.0.name);
        let named = move |kind| BackendError { model: Arc::clone(&name), kind };
        match Attempt::admit(&self.0) {
            Err(kind) => stream::iter([Err(named(kind))]).boxed(),
            Ok(mut attempt) => answer(Arc::clone(&self.0), job)
                .map(move |item| {
                    attempt.observe(&item);
                    item.map_err(&named)
                })
                .boxed(),
        }
    }

    fn health(&self) -> Health {
        let slots = self.0.config.max_in_flight;
        let free = u32::try_from(self.0.places.available_permits()).unwrap_or(slots);
        Health {
            ready: self.0.missing_key().is_none() && self.0.breaker().is_ready(Instant::now()),
            ready_in: None,
            in_flight: slots.saturating_sub(free),
            slots,
            context_tokens: self.0.config.context_tokens,
        }
    }
}

#[derive(Debug)]
struct Upstream {
    name: Arc<str>,
    /// What the upstream calls the model.
    model: String,
    config: Config,
    targets: Targets,
    has_key: bool,
    transport: Transport,
    places: Arc<Semaphore>,
    breaker: Mutex<Breaker>,
}

/// Where requests of each kind are sent.
#[derive(Debug)]
struct Targets {
    chat: Target,
    completions: Target,
    embeddings: Target,
}

impl Targets {
    fn of(&self, request: &Request) -> &Target {
        match request {
            Request::Chat(_) => &self.chat,
            Request::Completion(_) => &self.completions,
            Request::Embedding(_) => &self.embeddings,
        }
    }
}

impl Upstream {
    fn missing_key(&self) -> Option<&str> {
        self.config.api_key_env.as_deref().filter(|_| !self.has_key)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock()
    }

    /// Sends the request and waits for the headers of a 2xx response.
    async fn send(&self, job: &Job) -> Result<Response, ErrorKind> {
        let streams = job.request.streams();
        let body = request::rewrite(&job.body, &self.model, streams)
            .map_err(|error| RequestFault::new(error.to_string(), None, None).of_request())?;
        let accept = if streams { "text/event-stream" } else { "application/json" };
        let target = self.targets.of(&job.request);
        let connect_timeout = self.config.connect_timeout();
        let response = self.transport.post(target, accept, body.into(), connect_timeout).await?;
        match response.status {
            status if status.is_success() => Ok(response),
            // Many upstreams know chat only. The breaker must not open for it: chat works.
            StatusCode::NOT_FOUND if !matches!(*job.request, Request::Chat(_)) => {
                Err(failure::unsupported(job.request.prompt_field()))
            }
            _ => Err(refusal(response).await),
        }
    }
}

async fn refusal(mut response: Response) -> ErrorKind {
    let (status, headers) = (response.status, std::mem::take(&mut response.headers));
    // A body that cannot be read leaves the status to classify by.
    let body = response.whole(MAX_ERROR_BYTES).await.unwrap_or_default();
    failure::refused(status, &headers, &body, SystemTime::now())
}

fn answer(upstream: Arc<Upstream>, job: Job) -> impl Stream<Item = Result<Event, ErrorKind>> {
    try_stream! {
        let streams = job.request.streams();
        let wait = upstream.config.headers_timeout(streams);
        let deadline = tokio::time::Instant::now() + wait;
        let late = |_| ErrorKind::Timeout { after: wait };
        let response = timeout_at(deadline, upstream.send(&job)).await.map_err(late)??;
        if streams {
            let mut response = timeout_at(deadline, expect_events(response)).await.map_err(late)??;
            yield Event::Started;
            let mut transcript = Transcript::new(job.request.choices());
            while let Some(piece) = next_piece(&upstream, &mut response, &transcript).await? {
                let read = transcript.feed(&piece);
                if let Some(chunks) = transcript.forward() {
                    yield Event::UpstreamChunks(chunks);
                }
                read?;
                if transcript.is_done() {
                    let _ = timeout(END_OF_BODY_WAIT, response.piece()).await;
                    break;
                }
            }
            for event in transcript.finish()? {
                yield event;
            }
        } else {
            yield Event::Started;
            let body = response.whole(MAX_ANSWER_BYTES);
            let body = timeout_at(deadline, body).await.map_err(late)??;
            for event in answer::whole(&body)? {
                yield event;
            }
        }
    }
}

/// The next piece of a streamed answer. `None` at its end, which an upstream may forget to send, or
/// to send well, once everything has been said.
async fn next_piece(
    upstream: &Upstream,
    response: &mut Response,
    transcript: &Transcript,
) -> Result<Option<Bytes>, ErrorKind> {
    let idle_timeout = upstream.config.idle_timeout();
    if transcript.is_complete() {
        let wait = idle_timeout.min(USAGE_WAIT);
        return Ok(timeout(wait, response.piece()).await.ok().and_then(Result::ok).flatten());
    }
    let piece = timeout(idle_timeout, response.piece()).await;
    piece.map_err(|_| ErrorKind::Timeout { after: idle_timeout })?
}

/// Makes sure that a streamed answer is a stream, before anything of it counts.
async fn expect_events(response: Response) -> Result<Response, ErrorKind> {
    let content_type = response.headers.get(CONTENT_TYPE).map_or("", |value| {
        value.to_str().unwrap_or("unreadable").split(';').next().unwrap_or_default().trim()
    });
    // Some servers name no type; then the content must speak for itself.
    if content_type.is_empty() || content_type.eq_ignore_ascii_case("text/event-stream") {
        return Ok(response);
    }
    let unexpected = ErrorKind::Protocol(format!("{content_type:?} instead of an event stream"));
    let body = response.whole(MAX_ERROR_BYTES).await.unwrap_or_default();
    Err(answer::misplaced_error(&body).unwrap_or(unexpected))
}

/// A place at the upstream, held while the answer is read or until its stream is dropped.
struct Attempt {
    upstream: Arc<Upstream>,
    admission: Admission,
    outcome: Outcome,
    _place: OwnedSemaphorePermit,
}

impl Attempt {
    fn admit(upstream: &Arc<Upstream>) -> Result<Self, ErrorKind> {
        if let Some(variable) = upstream.missing_key() {
            return Err(ErrorKind::Unavailable(format!("{variable}, its API key, is not set")));
        }
        let place = Arc::clone(&upstream.places).try_acquire_owned().map_err(|_| {
            ErrorKind::Overloaded {
                retry_after: OVERLOAD_RETRY_AFTER,
                ahead: upstream.config.max_in_flight,
            }
        })?;
        let admission = upstream.breaker().admit(Instant::now()).ok_or_else(|| {
            ErrorKind::Unavailable(
                "the circuit breaker is open after repeated failures of the upstream".to_owned(),
            )
        })?;
        Ok(Self {
            upstream: Arc::clone(upstream),
            admission,
            outcome: Outcome::Abandoned,
            _place: place,
        })
    }

    fn observe(&mut self, item: &Result<Event, ErrorKind>) {
        self.outcome = match item {
            Ok(Event::Done(_)) => Outcome::Answered,
            Ok(_) => return,
            // Refusing a wrong request is an answer too.
            Err(kind) if kind.source() == ErrorSource::Client => Outcome::Answered,
            Err(_) => Outcome::Failed,
        };
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.upstream.breaker().settle(self.admission, self.outcome, Instant::now());
    }
}
