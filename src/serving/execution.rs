//! Execution of one request: tries the candidates in order, follows the answer, and enters it in
//! the receipts once.
//!
//! Every execution ends exactly once: by [`Execution::answered`], by [`Execution::failed`], or by
//! being dropped, which means that the client left.

mod closing;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::{timeout, timeout_at};

use super::attempt_state::{AttemptStart, output_pieces};
use super::conversations::retry_detector::Fingerprint;
use super::decision_metrics;
use super::error::{ServeError, ServeErrorKind};
use super::failures::Failures;
use super::first_tokens::FirstTokens;
use super::gateway::Gateway;
use super::judge::answer_capture::AnswerCapture;
use super::models::deployment::{Deployment, MeteredBy};
use super::models::model::Model;
use super::options::RequestOptions;
use super::plan::Plan;
use super::recorder::RequestRecorder;
use super::redaction::without_quotes;
use super::remote_metering::RemoteMetering;
use crate::backends::{BackendError, ErrorKind, Event, EventStream, Job, SchedulingOptions};
use crate::openai::Request;
use crate::routing::Cascade;
use crate::routing::cascade::WINDOW_TOKENS;
use crate::routing::reason::ReasonKind;
use crate::traffic::{AttemptOutcome, ImplicitSignal};
use crate::units::{AttemptId, MonotonicNs};

/// Events without output after which a model counts as answering: they are held in memory.
const HELD_EVENTS_MAX: usize = 64;

/// A request that is being answered.
pub struct Execution {
    gateway: Arc<Gateway>,
    request: Arc<Request>,
    /// The client's body, for backends that forward it.
    body: Bytes,
    pub plan: Plan,
    scheduling: SchedulingOptions,
    /// `None` unless the request is a conversation.
    fingerprint: Option<Fingerprint>,
    recorder: RequestRecorder,
    /// The model that is being tried.
    model: Arc<Model>,
    events: Option<EventStream>,
    /// Meter reports of the current attempt, if its upstream is metered from here.
    remote: Option<RemoteMetering>,
    /// Events that arrived before it was settled that this model answers.
    held: VecDeque<Event>,
    /// Text of the answer for a judge; `None` if it is not to be judged.
    capture: Option<AnswerCapture>,
}

/// Assessment of the beginning of an answer.
enum Beginning {
    Good,
    /// Another model should answer.
    Weak,
}

impl Execution {
    /// Counts the decision, enters the request in its conversation and records a retry of an
    /// earlier answer.
    pub fn new(
        gateway: Arc<Gateway>,
        request: Request,
        body: Bytes,
        options: &RequestOptions,
        mut plan: Plan,
    ) -> Box<Self> {
        let fingerprint = detect_retry(&gateway, options, &request);
        decision_metrics::count(&gateway.metrics, &plan);
        if let Some(fingerprint) = &plan.fingerprint {
            let conversations = &gateway.router.conversations;
            plan.session = Some(conversations.enter(fingerprint, plan.rule.local_only));
        }
        let recorder = RequestRecorder::start(Arc::clone(&options.request_id), plan.took);
        let judge = gateway.judge.as_ref();
        let capture =
            judge.and_then(|judge| judge.capture(&request, &plan.features, &recorder.request_id));
        // Large, and handed from one future to another.
        Box::new(Self {
            gateway,
            request: Arc::new(request),
            body,
            scheduling: options.scheduling,
            fingerprint,
            recorder,
            model: Arc::clone(&plan.first),
            plan,
            events: None,
            remote: None,
            held: VecDeque::new(),
            capture,
        })
    }

    pub fn id(&self) -> &Arc<str> {
        &self.recorder.request_id
    }

    /// Arrival, seconds since the Unix epoch.
    pub fn created(&self) -> u64 {
        self.recorder.unix_ms / 1000
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    pub fn request(&self) -> &Request {
        &self.request
    }

    pub fn shared_request(&self) -> Arc<Request> {
        Arc::clone(&self.request)
    }

    /// Tries the candidates in the order of the decision until one gives output.
    pub async fn open(&mut self) -> Result<(), ServeError> {
        let mut failures = Failures::new(self.excluded());
        let models = &self.plan.snapshot.models;
        let ranked = self.plan.decision.ranked_candidates();
        let mut order: VecDeque<Arc<Model>> =
            ranked.filter_map(|one| models.get(&one.model).cloned()).collect();
        let mut cascade = self.cascade();
        let mut escalated = false;
        while let Some(model) = order.pop_front() {
            self.model = model;
            match self.try_deployments(cascade.take()).await {
                Ok(Beginning::Good) => return Ok(()),
                Ok(Beginning::Weak) => {
                    escalated = true;
                    // If no other model can answer, a weak answer is better than none.
                    order.push_back(Arc::clone(&self.model));
                }
                Err(error) => {
                    // A request that the second model rejects was accepted by the first one.
                    let late = error.kind == ErrorKind::DeadlineExceeded;
                    let goes_on = error.kind.another_could_answer() || (escalated && !late);
                    let failure = self.failure(error);
                    if !goes_on {
                        return Err(failure.into());
                    }
                    failures.add(failure);
                }
            }
        }
        Err(failures.most_hopeful().into())
    }

    /// Why the candidates that were not ranked may not answer.
    fn excluded(&self) -> ServeErrorKind {
        let models = &self.plan.snapshot.models;
        ServeErrorKind::no_candidate(&self.plan.decision.evaluated, |model| {
            models.get(model).and_then(|model| model.health().ready_in)
        })
    }

    /// How the first model's answer is assessed; `None` without a cascade.
    fn cascade(&self) -> Option<Cascade> {
        let watched = matches!(self.plan.decision.reason.kind, ReasonKind::Watched { .. });
        self.plan.rule.cascade.filter(|_| watched)
    }

    fn failure(&self, error: BackendError) -> ServeErrorKind {
        match error.kind {
            ErrorKind::ContextExceeded { .. } => {
                ServeErrorKind::TooLong { error, field: self.request.prompt_field() }
            }
            _ => ServeErrorKind::Backend(error),
        }
    }

    /// Tries the model's deployments, healthy and idle ones first, until one gives output. Each try
    /// is an attempt.
    async fn try_deployments(
        &mut self,
        cascade: Option<Cascade>,
    ) -> Result<Beginning, BackendError> {
        let mut failure = self.no_deployment();
        for deployment in self.model.to_try(self.plan.rule.reach()) {
            match self.attempt(&deployment, cascade).await {
                Err(error) if error.kind.another_could_answer() => failure = error,
                ended => return ended,
            }
        }
        Err(failure)
    }

    /// Starts one deployment and waits for its first output, or, under a cascade, for enough of it
    /// to assess. Until then the next candidate could answer unnoticed: a role, an empty chunk or
    /// the name of a choice is no output yet.
    async fn attempt(
        &mut self,
        deployment: &Arc<Deployment>,
        cascade: Option<Cascade>,
    ) -> Result<Beginning, BackendError> {
        self.start_attempt(deployment);
        loop {
            let event = self.next_or_fail().await?;
            // An answer may be empty, and an upstream may send empty chunks for ever.
            let begins = output_pieces(&event) > 0
                || matches!(event, Event::Done(_))
                || self.held.len() >= HELD_EVENTS_MAX;
            match event {
                Event::Started | Event::Confidence(_) | Event::Truncated { .. } => {}
                event => self.held.push_back(event),
            }
            if begins {
                return match cascade {
                    Some(cascade) => self.withhold(cascade).await,
                    None => Ok(Beginning::Good),
                };
            }
        }
    }

    fn start_attempt(&mut self, deployment: &Arc<Deployment>) {
        let attempt = self.gateway.next_attempt();
        self.held.clear();
        self.remote = self.open_remote_metering(attempt, deployment);
        let start = self.attempt_start(attempt, deployment);
        self.recorder.attempt_started(start);
        let job = Job {
            attempt,
            request: Arc::clone(&self.request),
            body: self.body.clone(),
            terms: self.scheduling,
        };
        self.events = Some(deployment.backend.start(job));
    }

    fn open_remote_metering(
        &self,
        attempt: AttemptId,
        deployment: &Deployment,
    ) -> Option<RemoteMetering> {
        // The estimate: the upstream's own count comes with the end, if ever.
        let prompt_tokens = self.plan.features.prompt_tokens;
        let (meter, name) = (&self.gateway.router.meter, &self.model.name);
        (deployment.metered_by == MeteredBy::Remote)
            .then(|| RemoteMetering::open(meter, name, attempt, prompt_tokens))
    }

    fn attempt_start(&self, id: AttemptId, deployment: &Arc<Deployment>) -> AttemptStart {
        let name = &self.model.name;
        let loading = deployment.load_cost(name, &self.gateway.router.meter).is_some();
        let cascade = self.plan.rule.cascade;
        AttemptStart {
            id,
            model: Arc::clone(name),
            deployment: Arc::clone(deployment),
            names_deployment: !self.model.others.is_empty(),
            window_tokens: cascade.map_or(WINDOW_TOKENS, |cascade| cascade.withhold_tokens),
            queued: loading || deployment.backend.health().waiting() > 0,
            metered: deployment.metered_by != MeteredBy::Table,
        }
    }

    fn end_attempt(&mut self, outcome: AttemptOutcome, error: Option<ErrorKind>) {
        self.recorder.attempt_ended(outcome, error);
        if let Some(remote) = self.remote.take() {
            remote.close(self.recorder.usage().map(|usage| usage.generated_tokens()));
        }
    }

    /// Withholds output until the first tokens are known, and assesses them.
    async fn withhold(&mut self, cascade: Cascade) -> Result<Beginning, BackendError> {
        let until = tokio::time::Instant::now() + Duration::from_millis(cascade.withhold_ms);
        while self.recorder.first_tokens().is_some_and(|first| !first.is_complete()) {
            match timeout_at(until, self.next_or_fail()).await {
                Ok(event) => self.held.push_back(event?),
                // The tokens that have come by now must do.
                Err(_) => break,
            }
        }
        let signals = self.recorder.first_tokens().and_then(FirstTokens::signals);
        let model = &self.model().name;
        let p = self.plan.decision.p(model);
        // Without confidences the answer is taken as it comes.
        let Some(signals) = signals else { return Ok(Beginning::Good) };
        let weights = self.plan.snapshot.router.confidence.weights(model);
        let confidence = weights.score(p, &signals);
        let threshold = cascade.threshold_or(self.plan.rule.floor);
        self.recorder.assessed(confidence, threshold);
        if confidence >= threshold {
            return Ok(Beginning::Good);
        }
        self.end_attempt(AttemptOutcome::Escalated, None);
        // Dropping the stream cancels the work.
        self.events = None;
        self.held.clear();
        Ok(Beginning::Weak)
    }

    /// The next event of an answer that has not ended; an error if it ends here.
    async fn next_or_fail(&mut self) -> Result<Event, BackendError> {
        if let Some(event) = self.poll_backend().await {
            return event;
        }
        let error = self.ended_early();
        self.end_attempt(AttemptOutcome::Failed, Some(error.kind.clone()));
        Err(error)
    }

    /// The next event of the answer. `None` after `Done` or an error.
    pub async fn next(&mut self) -> Option<Result<Event, BackendError>> {
        let event = match self.held.pop_front() {
            Some(held) => Some(Ok(held)),
            None => self.poll_backend().await,
        };
        if let (Some(capture), Some(Ok(event))) = (&mut self.capture, &event) {
            capture.take(event);
        }
        event
    }

    /// The next event as it comes from the backend, within the request's deadline.
    async fn poll_backend(&mut self) -> Option<Result<Event, BackendError>> {
        let next = self.events.as_mut()?.next();
        let event = match self.scheduling.deadline {
            None => next.await,
            Some(deadline) => {
                let left = Duration::from_nanos(deadline - MonotonicNs::now());
                timeout(left, next).await.unwrap_or_else(|_| Some(Err(self.deadline_error())))
            }
        };
        match &event {
            Some(Ok(event)) => {
                self.recorder.observe(event);
                if let Some(remote) = &mut self.remote {
                    remote.pieces(output_pieces(event));
                }
            }
            Some(Err(error)) => {
                self.log_failure(error);
                self.end_attempt(AttemptOutcome::Failed, Some(error.kind.clone()));
                self.events = None;
            }
            None => self.events = None,
        }
        event
    }

    fn no_deployment(&self) -> BackendError {
        let kind = ErrorKind::Unavailable("no deployment may be used".into());
        BackendError { model: Arc::clone(&self.model.name), kind }
    }

    fn deadline_error(&self) -> BackendError {
        BackendError { model: Arc::clone(&self.model().name), kind: ErrorKind::DeadlineExceeded }
    }

    fn ended_early(&self) -> BackendError {
        let kind = ErrorKind::Protocol("the answer ended before it began".into());
        BackendError { model: Arc::clone(&self.model().name), kind }
    }

    fn log_failure(&self, error: &BackendError) {
        tracing::warn!(
            request.id = %self.id(),
            model.name = %error.model,
            error.kind = error.kind.label(),
            "attempt failed: {}",
            // A complaint about a request may quote it.
            without_quotes(&error.kind.to_string(), &self.body)
                .as_deref()
                .unwrap_or("its reason may quote the request"),
        );
    }
}

/// Records a retry if the conversation was answered a moment ago; returns its fingerprint.
fn detect_retry(
    gateway: &Gateway,
    options: &RequestOptions,
    request: &Request,
) -> Option<Fingerprint> {
    let Request::Chat(chat) = request else { return None };
    let session = options.session.as_deref().unwrap_or_default();
    let client = [&*options.credentials, session.as_bytes()];
    let fingerprint = gateway.retries.fingerprint(&client, &chat.messages);
    if let Some(earlier) = gateway.retries.repeated(fingerprint, Instant::now()) {
        gateway.receipts.record_signal(&earlier, ImplicitSignal::Retry);
    }
    Some(fingerprint)
}
