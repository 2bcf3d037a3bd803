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
mod json_text;
mod key;
mod patience;
mod plain;
mod request;
mod sniff;
mod sse;
mod streamed;
mod transport;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_stream::try_stream;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use parking_lot::{Mutex, MutexGuard};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use tokio::time::timeout_at;

use self::answer::Asked;
use self::breaker::{Admission, Breaker, Outcome};
pub use self::config::{BaseUrlError, CapabilitiesConfig, Config, DeploymentConfig};
pub use self::key::{ApiKey, InvalidApiKey};
use self::request::StreamUsage;
use self::streamed::streamed;
use self::transport::{Response, Target, Transport};
use super::backend::{
    Backend, BackendError, ErrorKind, Event, EventStream, Health, Job, RequestFault,
};
use crate::offload;
use crate::openai::Request;
use crate::shares::{Client, Refusal as NoShare, Share, Shares, Taken};

/// Most bytes of a whole answer.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// Most bytes of an error body.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// How long a client should wait when every place is taken: answers take seconds.
const OVERLOAD_RETRY_AFTER: Duration = Duration::from_secs(1);

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
        Self::sharing(name, config, key, Share::default())
    }

    /// As [`Self::new`]; one client may take `share` of the places.
    pub fn sharing(
        name: Arc<str>,
        config: Config,
        key: Option<&ApiKey>,
        share: Share,
    ) -> Result<Self, SetupError> {
        let endpoints = config.endpoints()?;
        let target = |url| Target::new(url, key.map(ApiKey::authorization));
        let targets = Targets {
            chat: target(&endpoints.chat)?,
            completions: target(&endpoints.completions)?,
            embeddings: target(&endpoints.embeddings)?,
        };
        Ok(Self(Arc::new(Upstream {
            transport: Transport::new(&endpoints.chat, &config)?,
            model: config.model.as_deref().map_or_else(|| Arc::clone(&name), Arc::from),
            name,
            targets,
            key: key.cloned(),
            refuses_stream_options: AtomicBool::new(!config.stream_usage),
            places: Shares::new(config.max_in_flight.into(), share),
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
        match Attempt::admit(&self.0, job.terms.client) {
            Err(kind) => stream::iter([Err(named(kind))]).boxed(),
            Ok(mut attempt) => answer(Arc::clone(&self.0), job)
                .map(move |item| {
                    attempt.observe(&item);
                    item.map_err(|kind| named(attempt.upstream.without_key(kind)))
                })
                .boxed(),
        }
    }

    fn health(&self) -> Health {
        let slots = self.0.config.max_in_flight;
        let ready_in = self.0.breaker().ready_in(Instant::now());
        let has_key = self.0.missing_key().is_none();
        Health {
            ready: has_key && ready_in.is_none(),
            ready_in: ready_in.filter(|_| has_key),
            in_flight: u32::try_from(self.0.places.held()).unwrap_or(u32::MAX),
            slots,
            context_tokens: self.0.config.context_tokens,
        }
    }
}

#[derive(Debug)]
struct Upstream {
    name: Arc<str>,
    /// What the upstream calls the model.
    model: Arc<str>,
    config: Config,
    targets: Targets,
    key: Option<ApiKey>,
    /// By the configuration, or found out.
    refuses_stream_options: AtomicBool,
    transport: Transport,
    places: Arc<Shares>,
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
        self.config.api_key_env.as_deref().filter(|_| self.key.is_none())
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock()
    }

    /// Sends the request and waits for the headers of a 2xx response.
    async fn send(&self, job: &Job) -> Result<Response, ErrorKind> {
        let streams = job.request.streams();
        let usage = match (streams, self.refuses_stream_options.load(Ordering::Relaxed)) {
            (false, _) => StreamUsage::NotStreamed,
            (true, false) => StreamUsage::Asked,
            (true, true) => StreamUsage::Withheld,
        };
        let response = self.post(job, usage).await?;
        if response.status.is_success() {
            return Ok(response);
        }
        let refusal = Refusal::read(response).await;
        if usage == StreamUsage::Asked
            && failure::refuses_stream_options(refusal.status, &refusal.body)
        {
            let again = self.post(job, StreamUsage::Withheld).await?;
            if again.status.is_success() {
                self.refuses_stream_options.store(true, Ordering::Relaxed);
                return Ok(again);
            }
            return Err(Refusal::read(again).await.kind(&job.request));
        }
        Err(refusal.kind(&job.request))
    }

    async fn post(&self, job: &Job, usage: StreamUsage) -> Result<Response, ErrorKind> {
        let (body, model) = (job.body.clone(), Arc::clone(&self.model));
        let rewrite = move || request::rewrite(&body, &model, usage);
        let rewritten = offload::run(job.body.len(), rewrite).await;
        let body = rewritten
            .ok_or_else(|| ErrorKind::Unavailable("its request could not be written".into()))?
            .map_err(|error| RequestFault::new(error.to_string(), None, None).of_request())?;
        let streams = usage != StreamUsage::NotStreamed;
        let accept = if streams { "text/event-stream" } else { "application/json" };
        let target = self.targets.of(&job.request);
        self.transport.post(target, accept, body.into(), self.config.connect_timeout()).await
    }

    /// The error without the gateway's own key, which an upstream may repeat.
    fn without_key(&self, kind: ErrorKind) -> ErrorKind {
        let Some(key) = &self.key else { return kind };
        let hide = |text: String| key.masked_in(&text);
        let hide_fault = |fault: Box<RequestFault>| {
            Box::new(RequestFault {
                status: fault.status,
                message: hide(fault.message),
                param: fault.param.map(hide),
                code: fault.code.map(hide),
            })
        };
        match kind {
            ErrorKind::InvalidRequest(fault) => ErrorKind::InvalidRequest(hide_fault(fault)),
            ErrorKind::Unsupported(fault) => ErrorKind::Unsupported(hide_fault(fault)),
            ErrorKind::RateLimited { retry_after, reason } => {
                ErrorKind::RateLimited { retry_after, reason: reason.map(hide) }
            }
            ErrorKind::UpstreamStatus { status, retry_after, reason } => {
                ErrorKind::UpstreamStatus { status, retry_after, reason: reason.map(hide) }
            }
            other => other,
        }
    }
}

/// A response whose status is not 2xx.
struct Refusal {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Refusal {
    async fn read(mut response: Response) -> Self {
        let (status, headers) = (response.status, std::mem::take(&mut response.headers));
        // A body that cannot be read leaves the status to classify by.
        let body = response.whole(MAX_ERROR_BYTES).await.unwrap_or_default();
        Self { status, headers, body }
    }

    fn kind(&self, request: &Request) -> ErrorKind {
        match self.status {
            // Many upstreams know chat only.
            StatusCode::NOT_FOUND if !matches!(request, Request::Chat(_)) => {
                failure::unsupported(request.prompt_field())
            }
            status => failure::refused(status, &self.headers, &self.body, SystemTime::now()),
        }
    }
}

fn answer(upstream: Arc<Upstream>, job: Job) -> impl Stream<Item = Result<Event, ErrorKind>> {
    let events = async move {
        let streams = job.request.streams();
        let wait = upstream.config.headers_timeout(streams);
        let deadline = tokio::time::Instant::now() + wait;
        let late = ErrorKind::Timeout { after: wait };
        match timeout_at(deadline, upstream.send(&job)).await {
            Err(_) => failed(late),
            Ok(Err(error)) => failed(error),
            Ok(Ok(response)) if streams => {
                let asked = Asked::of(&job.request);
                streamed(response, asked, upstream.config.patience()).boxed()
            }
            Ok(Ok(response)) => whole(response, Asked::of(&job.request), deadline, late).boxed(),
        }
    };
    stream::once(events).flatten()
}

fn failed(error: ErrorKind) -> BoxStream<'static, Result<Event, ErrorKind>> {
    stream::iter([Err(error)]).boxed()
}

fn whole(
    response: Response,
    asked: Asked,
    deadline: tokio::time::Instant,
    late: ErrorKind,
) -> impl Stream<Item = Result<Event, ErrorKind>> {
    try_stream! {
        yield Event::Started;
        let body = timeout_at(deadline, response.whole(MAX_ANSWER_BYTES)).await;
        let mut body = body.map_err(|_| late)??;
        if sniff::kind(&body, false) == Some(sniff::Kind::Events) {
            body = answer::collected(&body, asked)?.into();
        }
        for event in answer::whole(&body)? {
            yield event;
        }
    }
}

/// A place at the upstream, held while the answer is read or until its stream is dropped.
struct Attempt {
    upstream: Arc<Upstream>,
    admission: Admission,
    outcome: Outcome,
    _place: Taken,
}

impl Attempt {
    fn admit(upstream: &Arc<Upstream>, client: Client) -> Result<Self, ErrorKind> {
        if let Some(variable) = upstream.missing_key() {
            return Err(ErrorKind::Unavailable(format!("{variable}, its API key, is not set")));
        }
        let place = upstream.places.take(client, 1).map_err(|refusal| match refusal {
            NoShare::Full => ErrorKind::Overloaded {
                retry_after: OVERLOAD_RETRY_AFTER,
                ahead: upstream.config.max_in_flight,
            },
            NoShare::Share => ErrorKind::ClientShare { retry_after: OVERLOAD_RETRY_AFTER },
        })?;
        let admission = upstream.breaker().admit(Instant::now())?;
        Ok(Self {
            upstream: Arc::clone(upstream),
            admission,
            outcome: Outcome::Neutral,
            _place: place,
        })
    }

    fn observe(&mut self, item: &Result<Event, ErrorKind>) {
        match item {
            // The first byte answers the probe: others need not wait for the last one.
            Ok(Event::Started) if self.admission != Admission::Ordinary => {
                self.upstream.breaker().settle(self.admission, Outcome::Answered, Instant::now());
                self.admission = Admission::Ordinary;
            }
            Ok(Event::Done(_)) => self.outcome = Outcome::Answered,
            Ok(_) => {}
            Err(kind) => {
                self.outcome = Outcome::of(kind);
                self.upstream.breaker().heed(kind, Instant::now());
            }
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.upstream.breaker().settle(self.admission, self.outcome, Instant::now());
    }
}
