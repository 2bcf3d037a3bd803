//! What is noted down while a request is answered, and the record it becomes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::books;
use super::footprint::unix_ms;
use super::history::Observed;
use super::model::{Kind, Model};
use super::plan::Plan;
use super::remote::Remote;
use super::state::Gateway;
use super::watch::Watch;
use crate::backends::{ErrorKind, Event};
use crate::energy::cloud::{PerToken, estimate};
use crate::energy::{EnergyFigure, MeterHandle, Source};
use crate::openai::{FinishReason, Request, Usage};
use crate::routing::cascade::WINDOW_TOKENS;
use crate::routing::{Features, Route};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{AttemptLabels, ModelLabels, RequestLabels, TokenLabels};
use crate::traffic::record::RECORD_VERSION;
use crate::traffic::{Attempt, AttemptOutcome, Outcome, Prompt, Receipt, Record, Timings};
use crate::units::{AttemptId, Dollars};

/// Notes on one request.
pub struct Tally {
    pub request_id: Arc<str>,
    /// Arrival, milliseconds since the Unix epoch.
    pub unix_ms: u64,
    arrived: Instant,
    decision_ms: f64,
    tries: Vec<Try>,
    closed: bool,
}

/// One attempt at one model.
struct Try {
    id: AttemptId,
    model: Arc<str>,
    route: Route,
    outcome: AttemptOutcome,
    error: Option<ErrorKind>,
    usage: Option<Usage>,
    /// Pieces of output seen: stands in for completion tokens until the usage is known.
    pieces: u64,
    first_token_ms: Option<f64>,
    /// How long output was withheld after it began.
    withheld_ms: f64,
    /// What its first tokens tell.
    watch: Watch,
    /// Probability of a good enough answer by them, and the least one for it to be shown.
    confidence: Option<(f64, f64)>,
    /// When it began, milliseconds since arrival.
    began_ms: f64,
    /// It had to queue, or the model to be loaded first: how long that took says nothing about the next answer.
    waited: bool,
    finish: Option<FinishReason>,
    /// Turns left out so that the conversation fits.
    dropped_turns: Option<u32>,
    /// What the upstream itself reported, which beats the table.
    reported: Option<EnergyFigure>,
    /// Where its machine is metered from here, which beats what it says.
    metered: Option<Remote>,
}

impl Tally {
    /// Starts the clock; `deciding` is what the decision took before.
    pub fn start(deciding: Duration) -> Self {
        Self {
            request_id: uuid::Uuid::now_v7().to_string().into(),
            unix_ms: unix_ms(),
            arrived: Instant::now().checked_sub(deciding).unwrap_or_else(Instant::now),
            decision_ms: deciding.as_secs_f64() * 1e3,
            tries: Vec::new(),
            closed: false,
        }
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub fn tried_anything(&self) -> bool {
        !self.tries.is_empty()
    }

    /// Token counts of the last attempt, if its backend told them.
    pub fn usage(&self) -> Option<Usage> {
        self.tries.last().and_then(|one| one.usage)
    }

    /// Whether the model that is asked now has said anything.
    pub fn has_output(&self) -> bool {
        self.tries.last().is_some_and(|one| one.pieces > 0)
    }

    pub fn attempt_started(
        &mut self,
        model: &Model,
        id: AttemptId,
        meter: &MeterHandle,
        plan: &Plan,
    ) {
        let metered = match model.kind {
            // As estimated: what the upstream counts comes with the end, if ever.
            Kind::Cloud(_) => Remote::open(meter, &model.name, id, plan.features.prompt_tokens),
            Kind::Local { .. } => None,
        };
        let cascade = plan.rule.cascade;
        let window_tokens = cascade.map_or(WINDOW_TOKENS, |cascade| cascade.withhold_tokens);
        self.tries.push(Try {
            id,
            model: Arc::clone(&model.name),
            route: model.route(),
            outcome: AttemptOutcome::Running,
            error: None,
            usage: None,
            pieces: 0,
            first_token_ms: None,
            withheld_ms: 0.0,
            watch: Watch::new(window_tokens),
            confidence: None,
            began_ms: self.elapsed_ms(),
            waited: model.load_cost(meter).is_some() || model.backend.health().waiting() > 0,
            finish: None,
            dropped_turns: None,
            reported: None,
            metered,
        });
    }

    pub fn observe(&mut self, event: &Event) {
        let now_ms = self.elapsed_ms();
        let Some(current) = self.tries.last_mut() else { return };
        current.watch.observe(event);
        match event {
            Event::Text(_)
            | Event::Reasoning(_)
            | Event::ToolCall { .. }
            | Event::ToolArguments { .. }
            | Event::Embeddings(_)
            | Event::Upstream(_) => {
                current.pieces += 1;
                current.first_token_ms.get_or_insert(now_ms);
                if let Some(remote) = &mut current.metered {
                    remote.piece();
                }
            }
            Event::Truncated { turns } => current.dropped_turns = Some(*turns),
            Event::Usage(usage) => current.usage = Some(*usage),
            Event::Energy(figure) => current.reported = Some(*figure),
            Event::Started
            | Event::Confidence(_)
            | Event::Logprobs(_)
            | Event::Choice(_)
            | Event::ChoiceDone(_) => {}
            Event::Done(finish) => current.finish = Some(*finish),
        }
    }

    /// The beginning of the answer that comes now.
    pub fn watch(&self) -> Option<&Watch> {
        self.tries.last().map(|one| &one.watch)
    }

    /// Notes what was made of that beginning: its confidence, and the least one for it to be shown.
    pub fn judged(&mut self, confidence: f64, threshold: f64) {
        let now_ms = self.elapsed_ms();
        if let Some(current) = self.tries.last_mut() {
            current.confidence = Some((confidence, threshold));
            current.withheld_ms = now_ms - current.first_token_ms.unwrap_or(now_ms);
        }
    }

    /// Notes how the current attempt ended; one that has ended already keeps its outcome.
    pub fn attempt_ended(&mut self, outcome: AttemptOutcome, error: Option<ErrorKind>) {
        if let Some(current) = self.tries.last_mut()
            && current.outcome == AttemptOutcome::Running
        {
            current.outcome = outcome;
            current.error = error;
            if let Some(remote) = &mut current.metered {
                remote.close(current.usage.map(|usage| usage.generated_tokens()));
            }
        }
    }

    /// The receipt as it stands; energy is provisional for attempts that are metered here.
    pub fn receipt(&self, gateway: &Gateway, plan: &Plan) -> Receipt {
        let attempts: Vec<Attempt> =
            self.tries.iter().map(|one| one.attempt(gateway, &plan.features)).collect();
        let answering = self.tries.last().filter(|one| !one.gave_way());
        Receipt {
            request_id: Arc::clone(&self.request_id),
            policy: Arc::clone(&plan.policy.name),
            route: answering.map(|one| one.route),
            model: answering.map(|one| Arc::clone(&one.model)),
            reason: self.reason(plan),
            candidates: Arc::clone(&plan.decision.judged),
            energy: books::total(&attempts),
            carbon: gateway.books.footprint.carbon_of_all(&attempts),
            electricity_dollars: gateway
                .books
                .footprint
                .electricity_of_all(&attempts, self.unix_ms),
            attempts,
        }
    }

    /// Why this model answers: the decision's reason, and what became of earlier choices.
    fn reason(&self, plan: &Plan) -> String {
        let turns: Vec<String> = self.tries.iter().filter_map(Try::turn).collect();
        if turns.is_empty() {
            plan.decision.reason.to_string()
        } else {
            format!("{}; {}", plan.decision.reason, turns.join(", "))
        }
    }

    /// Turns the notes into a record, counts it and enters it in the books. Returns the receipt.
    pub fn close(
        &mut self,
        gateway: &Gateway,
        plan: &Plan,
        request: &Request,
        outcome: Outcome,
        status: u16,
    ) -> Receipt {
        self.closed = true;
        let receipt = self.receipt(gateway, plan);
        let record = Record {
            version: RECORD_VERSION,
            unix_ms: self.unix_ms,
            receipt: receipt.clone(),
            outcome,
            status,
            features: plan.features,
            rule: plan.rule.clone(),
            wishes: plan.wishes.clone(),
            propensity: plan.decision.propensity,
            session: plan.session,
            timings: self.timings(),
            usage: self.usage(),
            dollars: self.dollars(gateway),
            shadow: plan.shadow.clone(),
            label: None,
            prompt: Prompt::of(&request.messages(), gateway.prompts),
        };
        self.count(gateway, &record);
        gateway.books.enter(record, self.metered());
        receipt
    }

    /// Attempts that the meter settles, with their places.
    fn metered(&self) -> Vec<(AttemptId, usize)> {
        let places = self.tries.iter().enumerate();
        places
            .filter(|(_, one)| one.is_metered() && !one.never_ran())
            .map(|(place, one)| (one.id, place))
            .collect()
    }

    fn timings(&self) -> Timings {
        Timings {
            decision_ms: self.decision_ms,
            first_token_ms: self.tries.last().and_then(Try::shown_ms),
            total_ms: self.elapsed_ms(),
        }
    }

    /// What all attempts cost; unknown as soon as one price is.
    fn dollars(&self, gateway: &Gateway) -> Option<Dollars> {
        let price = |one: &Try| match (gateway.router.model(&one.model), one.usage) {
            (Some(model), Some(usage)) => model.dollars(&usage),
            // An upstream that reported no usage either did no work or owes us the count.
            (_, None) if one.route == Route::Local || one.pieces == 0 => Some(Dollars(0.0)),
            _ => None,
        };
        self.tries.iter().map(price).sum()
    }

    fn elapsed_ms(&self) -> f64 {
        self.arrived.elapsed().as_secs_f64() * 1e3
    }

    fn count(&self, gateway: &Gateway, record: &Record) {
        let metrics = &gateway.metrics;
        for one in &self.tries {
            one.count(gateway, metrics, &record.features, record.timings.total_ms);
        }
        let receipt = &record.receipt;
        let route = receipt.route.map_or("none", Route::label);
        let model: Arc<str> = receipt.model.clone().unwrap_or_else(|| "none".into());
        let outcome = record.outcome.label();
        let labels = RequestLabels { model: Arc::clone(&model), route, outcome };
        metrics.requests_total.get_or_create(&labels).inc();
        let timings = &record.timings;
        let labels = ModelLabels { model, route };
        metrics.request_duration_seconds.get_or_create(&labels).observe(timings.total_ms / 1e3);
        if let Some(first_token_ms) = timings.first_token_ms {
            metrics
                .time_to_first_token_seconds
                .get_or_create(&labels)
                .observe(first_token_ms / 1e3);
        }
    }
}

impl Try {
    fn observed(&self, usage: &Usage, ended_ms: f64) -> Observed {
        let own_ms = self.first_token_ms.map(|ms| ms - self.began_ms);
        Observed {
            computed_tokens: usage.prompt_tokens.saturating_sub(usage.cached_tokens()),
            completion_tokens: usage.completion_tokens,
            cut: self.finish == Some(FinishReason::Length),
            first_token_ms: own_ms.filter(|_| !self.waited),
            answer_ms: self.first_token_ms.map(|ms| ended_ms - ms),
        }
    }

    fn attempt(&self, gateway: &Gateway, features: &Features) -> Attempt {
        Attempt {
            model: Arc::clone(&self.model),
            route: self.route,
            outcome: self.outcome,
            error: self.error.as_ref().map(|error| error.label().to_owned()),
            dropped_turns: self.dropped_turns,
            amortised_joules: None,
            signals: self.watch.signals(),
            confidence: self.confidence.map(|(confidence, _)| confidence),
            energy: self.energy(gateway, features),
        }
    }

    /// Whether another model was asked instead.
    fn gave_way(&self) -> bool {
        matches!(self.outcome, AttemptOutcome::Failed | AttemptOutcome::Escalated)
    }

    /// What is to be said of the attempt in the reason, if it took a turn.
    fn turn(&self) -> Option<String> {
        let Self { model, error, .. } = self;
        match (self.outcome, self.confidence) {
            (AttemptOutcome::Failed, _) => {
                let error = error.as_ref().map_or("unknown", ErrorKind::label);
                Some(format!("{model} failed ({error})"))
            }
            (AttemptOutcome::Escalated, Some((found, least))) => {
                Some(format!("{model} looked unsure (confidence {found:.2}, wanted {least:.2})"))
            }
            (_, Some((found, least))) if found >= least => {
                Some(format!("{model} looked sure (confidence {found:.2})"))
            }
            _ => None,
        }
    }

    /// When the client could see the first output.
    fn shown_ms(&self) -> Option<f64> {
        self.first_token_ms.map(|first| first + self.withheld_ms)
    }

    fn energy(&self, gateway: &Gateway, features: &Features) -> Option<EnergyFigure> {
        let model = gateway.router.model(&self.model)?;
        match &model.kind {
            _ if self.never_ran() => None,
            _ if self.is_metered() => Some(gateway.router.meter.provisional(self.id)),
            Kind::Local { .. } => None,
            Kind::Cloud(config) => Some(
                self.reported.unwrap_or_else(|| self.cloud_energy(config.per_token(), features)),
            ),
        }
    }

    /// Whether its energy comes from the meter, and so settles later.
    fn is_metered(&self) -> bool {
        self.route == Route::Local || self.metered.is_some()
    }

    /// Whether the attempt was refused before any model worked on it.
    fn never_ran(&self) -> bool {
        self.pieces == 0 && self.error.as_ref().is_some_and(ErrorKind::is_before_work)
    }

    /// The table's figure for what is known of the answer.
    fn cloud_energy(&self, per_token: Option<PerToken>, features: &Features) -> EnergyFigure {
        match self.usage {
            // No table says what an image or a sound takes, and that is not nothing.
            _ if features.needs.media => EnergyFigure::unknown(Source::CloudTable),
            Some(usage) => {
                let (cached, generated) = (usage.cached_tokens(), usage.generated_tokens());
                estimate(per_token, usage.prompt_tokens, cached, generated)
            }
            // Cut short: the prompt was read, and every piece was at least a token.
            None => estimate(per_token, features.prompt_tokens.into(), 0, self.pieces),
        }
    }

    fn count(&self, gateway: &Gateway, metrics: &Metrics, features: &Features, ended_ms: f64) {
        let route = self.route.label();
        let outcome = self.outcome.label();
        let labels = AttemptLabels { model: Arc::clone(&self.model), route, outcome };
        metrics.attempts_total.get_or_create(&labels).inc();
        let Some(model) = gateway.router.model(&self.model) else { return };
        let Some(usage) = self.usage else { return };
        if self.outcome == AttemptOutcome::Answered {
            let error =
                model.learn(features, &self.observed(&usage, ended_ms), &gateway.router.meter);
            let labels = model.labels();
            metrics.output_length_predictions_total.get_or_create(&labels).inc();
            metrics.output_length_error_tokens_total.get_or_create(&labels).inc_by(error);
        }
        // An answer that came in one piece tells nothing of its pace.
        if let (Some(first_token_ms), later @ 1.., 2..) =
            (self.first_token_ms, usage.completion_tokens.saturating_sub(1), self.pieces)
        {
            let seconds = (ended_ms - first_token_ms) / 1e3 / later as f64;
            let labels = model.labels();
            metrics.time_per_output_token_seconds.get_or_create(&labels).observe(seconds);
        }
        let kinds = [
            ("prompt", usage.prompt_tokens),
            ("cached", usage.cached_tokens()),
            ("completion", usage.completion_tokens),
        ];
        for (kind, tokens) in kinds {
            let labels = TokenLabels { model: Arc::clone(&self.model), route, kind };
            metrics.tokens_total.get_or_create(&labels).inc_by(tokens);
        }
        if let (Route::Cloud, Some(dollars)) = (self.route, model.dollars(&usage)) {
            metrics.cost_dollars_total.get_or_create(&model.labels()).inc_by(dollars.0);
        }
    }
}
