//! One request's way from its decision to the books: tries the candidates, tracks the answer, bills it exactly once.
//!
//! Whatever ends an exchange (an answer, an error, a client that left), its record is entered once: by
//! [`Exchange::answered`] or [`Exchange::failed`], or by dropping it, which means that the client left.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::{timeout, timeout_at};

use super::error::ApiError;
use super::judge::{Case, Overheard, rival};
use super::model::Model;
use super::plan::Plan;
use super::recents::Fingerprint;
use super::state::Gateway;
use super::tally::Tally;
use super::watch::Watch;
use crate::backends::{BackendError, ErrorKind, Event, EventStream, Job, Terms};
use crate::openai::Request;
use crate::routing::reason::Why;
use crate::routing::session::Turn;
use crate::routing::{Cascade, Route};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{DecisionLabels, ShadowLabels, TurnLabels};
use crate::traffic::{AttemptOutcome, Outcome, Receipt, Sign};
use crate::units::MonotonicNs;

/// A request that is being answered.
pub struct Exchange {
    gateway: Arc<Gateway>,
    request: Arc<Request>,
    body: Bytes,
    pub plan: Plan,
    terms: Terms,
    /// By which a repetition is noticed.
    conversation: Option<Fingerprint>,
    tally: Tally,
    /// Place in `gateway.router.models` of the model that is being asked.
    model: usize,
    events: Option<EventStream>,
    /// What arrived while it was still open whether this model answers.
    held: VecDeque<Event>,
    /// The answer, for a judge; none where it is not to be judged.
    overheard: Option<Overheard>,
}

/// What the beginning of an answer promises.
enum Beginning {
    Good,
    /// Another model should answer.
    Weak,
}

impl Exchange {
    /// From here on the request counts, and its conversation remembers it.
    pub fn new(gateway: Arc<Gateway>, request: Request, body: Bytes, mut plan: Plan) -> Self {
        count_decision(&gateway.metrics, &plan);
        if let Some(place) = &plan.place {
            let conversations = &gateway.router.conversations;
            plan.session = Some(conversations.enter(place, plan.rule.local_only));
        }
        let tally = Tally::start(plan.took);
        let overheard = Self::overhear(&gateway, &request, &plan, &tally.request_id);
        Self {
            gateway,
            request: Arc::new(request),
            body,
            terms: Terms::default(),
            conversation: None,
            tally,
            plan,
            model: 0,
            events: None,
            held: VecDeque::new(),
            overheard,
        }
    }

    /// Sets what the client asks about the order of work.
    #[must_use]
    pub fn on(mut self, terms: Terms) -> Self {
        self.terms = terms;
        self
    }

    /// Sets by what the conversation can be recognised if it is sent again.
    #[must_use]
    pub fn of(mut self, conversation: Option<Fingerprint>) -> Self {
        self.conversation = conversation;
        self
    }

    pub fn id(&self) -> &Arc<str> {
        &self.tally.request_id
    }

    /// Arrival, seconds since the Unix epoch.
    pub fn created(&self) -> u64 {
        self.tally.unix_ms / 1000
    }

    pub fn model(&self) -> &Model {
        &self.gateway.router.models[self.model]
    }

    pub fn request(&self) -> &Request {
        &self.request
    }

    pub fn shared_request(&self) -> Arc<Request> {
        Arc::clone(&self.request)
    }

    /// Asks the candidates in the order of the decision until one gives output.
    pub async fn open(&mut self) -> Result<(), ApiError> {
        let mut failure = ApiError::no_candidate(&self.plan.decision.judged);
        let mut order = VecDeque::from(self.plan.decision.ranked.clone());
        let mut cascade = self.cascade();
        let mut escalated = false;
        while let Some(place) = order.pop_front() {
            self.model = place;
            match self.attempt(cascade.take()).await {
                Ok(Beginning::Good) => return Ok(()),
                Ok(Beginning::Weak) => {
                    escalated = true;
                    // If nobody else can answer, a weak answer is better than none.
                    order.push_back(place);
                }
                Err(error) => {
                    // What another model refuses, the first one had taken.
                    let late = error.kind == ErrorKind::DeadlineExceeded;
                    let goes_on = error.kind.retry_elsewhere() || (escalated && !late);
                    failure = self.refusal(error);
                    if !goes_on {
                        break;
                    }
                }
            }
        }
        Err(failure)
    }

    /// How the first model is watched, if it is.
    fn cascade(&self) -> Option<Cascade> {
        let watched = matches!(self.plan.decision.reason.why, Why::Watched { .. });
        self.plan.rule.cascade.filter(|_| watched)
    }

    fn refusal(&self, error: BackendError) -> ApiError {
        match error.kind {
            ErrorKind::ContextExceeded { .. } => {
                ApiError::TooLong { error, field: self.request.prompt_field() }
            }
            _ => ApiError::Backend(error),
        }
    }

    /// Starts one model and waits for its first output, or, under a cascade, for as much as shows whether it is sure. Until
    /// then the next candidate could answer unnoticed.
    async fn attempt(&mut self, cascade: Option<Cascade>) -> Result<Beginning, BackendError> {
        let attempt = self.gateway.next_attempt();
        let model = &self.gateway.router.models[self.model];
        self.held.clear();
        self.tally.attempt_started(model, attempt, &self.gateway.router.meter, &self.plan);
        let job = Job {
            attempt,
            request: Arc::clone(&self.request),
            body: self.body.clone(),
            terms: self.terms,
        };
        self.events = Some(model.backend.start(job));
        loop {
            match self.come().await {
                Ok(Event::Started | Event::Confidence(_) | Event::Truncated { .. }) => {}
                // An answer may be empty: then its usage comes first.
                Ok(early @ (Event::Usage(_) | Event::Energy(_))) => self.held.push_back(early),
                Ok(output) => {
                    self.held.push_back(output);
                    return match cascade {
                        Some(cascade) => self.withhold(cascade).await,
                        None => Ok(Beginning::Good),
                    };
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Holds output back until the first tokens are known, and judges by them.
    async fn withhold(&mut self, cascade: Cascade) -> Result<Beginning, BackendError> {
        let until = tokio::time::Instant::now() + Duration::from_millis(cascade.withhold_ms);
        while self.tally.watch().is_some_and(|watch| !watch.is_over()) {
            match timeout_at(until, self.come()).await {
                Ok(event) => self.held.push_back(event?),
                // What has come by now must do.
                Err(_) => break,
            }
        }
        let signals = self.tally.watch().and_then(Watch::signals);
        let model = &self.model().name;
        let judged = &self.plan.decision.judged[self.model].candidate;
        // An answer that tells nothing of itself is taken as it comes.
        let Some(signals) = signals else { return Ok(Beginning::Good) };
        let weights = self.plan.learnt.confidence.weights(model);
        let confidence = weights.score(judged.p, &signals);
        let threshold = cascade.threshold_or(self.plan.rule.floor);
        self.tally.judged(confidence, threshold);
        if confidence >= threshold {
            return Ok(Beginning::Good);
        }
        self.tally.attempt_ended(AttemptOutcome::Escalated, None);
        // Dropping the answer stops the work on it.
        self.events = None;
        self.held.clear();
        Ok(Beginning::Weak)
    }

    /// The next event of an answer that has not ended.
    async fn come(&mut self) -> Result<Event, BackendError> {
        if let Some(event) = self.live().await {
            return event;
        }
        let error = self.ended_early();
        self.tally.attempt_ended(AttemptOutcome::Failed, Some(error.kind.clone()));
        Err(error)
    }

    /// The next event of the answer. `None` after `Done` or an error.
    pub async fn next(&mut self) -> Option<Result<Event, BackendError>> {
        let event = match self.held.pop_front() {
            Some(held) => Some(Ok(held)),
            None => self.live().await,
        };
        if let (Some(overheard), Some(Ok(event))) = (&mut self.overheard, &event) {
            overheard.take(event);
        }
        event
    }

    /// The next event as it comes from the model.
    async fn live(&mut self) -> Option<Result<Event, BackendError>> {
        let next = self.events.as_mut()?.next();
        let event = match self.terms.deadline {
            None => next.await,
            Some(deadline) => {
                let left = Duration::from_nanos(deadline - MonotonicNs::now());
                timeout(left, next).await.unwrap_or_else(|_| Some(Err(self.late())))
            }
        };
        match &event {
            Some(Ok(event)) => self.tally.observe(event),
            Some(Err(error)) => {
                self.log_failure(error);
                self.tally.attempt_ended(AttemptOutcome::Failed, Some(error.kind.clone()));
                self.events = None;
            }
            None => self.events = None,
        }
        event
    }

    /// The receipt as it stands, its energy provisional.
    pub fn receipt(&self) -> Receipt {
        self.tally.receipt(&self.gateway, &self.plan)
    }

    /// Ends the exchange with an answer and returns the receipt to send with it.
    pub fn answered(mut self) -> Receipt {
        self.tally.attempt_ended(AttemptOutcome::Answered, None);
        if let Some(conversation) = self.conversation {
            let id = Arc::clone(&self.tally.request_id);
            self.gateway.recents.answered(conversation, id, Instant::now());
        }
        let receipt = self.close(Outcome::Answered, 200);
        // Once it is in the books, where a verdict finds it.
        self.offer_to_judge();
        receipt
    }

    /// Ends the exchange with an error.
    pub fn failed(mut self, error: &ApiError) -> Receipt {
        // A model that was still answering has failed too.
        self.tally.attempt_ended(AttemptOutcome::Failed, None);
        let tried = self.tally.tried_anything();
        self.close(if tried { Outcome::Failed } else { Outcome::Refused }, error.status().as_u16())
    }

    /// Listens to the answer if it is one of the share that is judged: plain conversations only.
    fn overhear(gateway: &Gateway, request: &Request, plan: &Plan, id: &str) -> Option<Overheard> {
        let judging = gateway.judging.as_ref().filter(|judging| judging.samples(id))?;
        let Request::Chat(chat) = request else { return None };
        let needs = plan.features.needs;
        let beyond_text = needs.tools || needs.media || needs.schema || chat.n.unwrap_or(1) > 1;
        (!beyond_text).then(|| judging.listen(&chat.messages))
    }

    fn offer_to_judge(&mut self) {
        let Some(answer) = self.overheard.take().and_then(Overheard::whole) else { return };
        let Request::Chat(chat) = &*self.request else { return };
        self.gateway.offer(Case {
            request_id: Arc::clone(&self.tally.request_id),
            messages: chat.messages.clone(),
            answer,
            output_limit: chat.output_limit(),
            local_only: self.plan.rule.local_only,
            other: rival(&self.plan.decision, self.model),
        });
    }

    fn close(&mut self, outcome: Outcome, status: u16) -> Receipt {
        self.events = None;
        if outcome == Outcome::Answered {
            self.remember_answer();
        }
        self.tally.close(&self.gateway, &self.plan, &self.request, outcome, status)
    }

    /// From now on the conversation is on this model.
    fn remember_answer(&self) {
        let (Some(session), Some(place)) = (self.plan.session, &self.plan.place) else { return };
        let (model, usage) = (self.model(), self.tally.usage().unwrap_or_default());
        let turn = Turn {
            model: Arc::clone(&model.name),
            route: model.route(),
            point: place.whole,
            cached_tokens: match model.route() {
                Route::Local => usage.prompt_tokens + usage.completion_tokens,
                // What a provider keeps is its own affair: what it kept last time is all one can go by.
                Route::Cloud => usage.cached_tokens(),
            },
        };
        self.gateway.router.conversations.answered(session, turn);
    }

    fn late(&self) -> BackendError {
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
            "{}",
            // An upstream's complaint about a request may quote it.
            match &error.kind {
                ErrorKind::InvalidRequest { .. } => "the upstream refused the request".to_owned(),
                kind => kind.to_string(),
            },
        );
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.tally.is_closed() {
            // Who waits for a whole answer has seen nothing to dislike.
            let abandoned = self.request.streams() && self.tally.has_output();
            self.tally.attempt_ended(AttemptOutcome::Cancelled, None);
            // 499 is what nginx logs for a client that closed the connection; nobody sees it.
            self.close(Outcome::Cancelled, 499);
            if abandoned {
                self.gateway.books.note(&self.tally.request_id, Sign::Abandon);
            }
        }
    }
}

fn count_decision(metrics: &Metrics, plan: &Plan) {
    let route = plan.decision.chosen().map_or("none", |candidate| candidate.route.label());
    let labels = DecisionLabels {
        policy: Arc::clone(&plan.policy.name),
        route,
        reason: plan.decision.reason.label(),
        task: plan.features.task.label(),
    };
    metrics.decisions_total.get_or_create(&labels).inc();
    metrics.decision_duration_seconds.observe(plan.took.as_secs_f64());
    if let Some(shadow) = &plan.shadow {
        let chosen = plan.decision.chosen().map(|candidate| &candidate.model);
        let agrees = if chosen == shadow.model.as_ref() { "true" } else { "false" };
        let labels = ShadowLabels { policy: Arc::clone(&plan.policy.name), agrees };
        metrics.shadow_decisions_total.get_or_create(&labels).inc();
    }
    if plan.place.is_some() {
        let labels = TurnLabels { policy: Arc::clone(&plan.policy.name), turn: turn(plan) };
        metrics.conversation_turns_total.get_or_create(&labels).inc();
    }
}

/// What this turn does to its conversation.
fn turn(plan: &Plan) -> &'static str {
    let chosen = plan.decision.chosen().map(|candidate| &candidate.model);
    match &plan.rule.stay {
        None => "first",
        Some(stay) if chosen == Some(&stay.model) => "stays",
        Some(_) if plan.decision.reason.gone.is_some() => "lost",
        Some(_) => "moves",
    }
}
