//! State of one attempt at one model, built up from its events. Pure: notes only.

use std::sync::Arc;

use super::first_tokens::FirstTokens;
use super::models::deployment::Deployment;
use super::pricing::Spent;
use crate::backends::{ErrorKind, Event};
use crate::energy::EnergyFigure;
use crate::openai::{FinishReason, Usage};
use crate::routing::{Features, Route};
use crate::traffic::{Attempt, AttemptOutcome};
use crate::units::AttemptId;

/// Facts known when an attempt begins.
#[derive(Clone)]
pub struct AttemptStart {
    pub id: AttemptId,
    pub model: Arc<str>,
    pub deployment: Arc<Deployment>,
    /// The model has several deployments, so that the receipt names this one.
    pub names_deployment: bool,
    /// Tokens whose confidence is recorded.
    pub window_tokens: u32,
    /// It has to queue, or the model to be loaded first: its time to first token predicts nothing.
    pub queued: bool,
    /// The meter here settles its energy.
    pub metered: bool,
}

/// One attempt at one model.
pub struct AttemptState {
    pub id: AttemptId,
    pub model: Arc<str>,
    pub deployment: Arc<Deployment>,
    names_deployment: bool,
    pub outcome: AttemptOutcome,
    pub error: Option<ErrorKind>,
    pub usage: Option<Usage>,
    /// Output events seen; the estimate of completion tokens until the usage is known.
    pub output_events: u64,
    /// Milliseconds since arrival.
    pub first_token_ms: Option<f64>,
    /// Milliseconds for which output was withheld after it began.
    withheld_ms: f64,
    pub first_tokens: FirstTokens,
    assessment: Option<Assessment>,
    /// Milliseconds since arrival.
    pub began_ms: f64,
    pub queued: bool,
    pub finish: Option<FinishReason>,
    /// Turns left out so that the conversation fits.
    dropped_turns: Option<u32>,
    /// The upstream's own figure, which takes precedence over the class table.
    pub reported: Option<EnergyFigure>,
    pub metered: bool,
}

/// Result of a cascade's look at the first tokens.
#[derive(Clone, Copy, Debug)]
struct Assessment {
    /// Probability that the answer is good enough.
    confidence: f64,
    /// Least confidence for the answer to be shown.
    threshold: f64,
}

impl AttemptState {
    pub fn new(start: AttemptStart, began_ms: f64) -> Self {
        Self {
            id: start.id,
            model: start.model,
            deployment: start.deployment,
            names_deployment: start.names_deployment,
            outcome: AttemptOutcome::Running,
            error: None,
            usage: None,
            output_events: 0,
            first_token_ms: None,
            withheld_ms: 0.0,
            first_tokens: FirstTokens::new(start.window_tokens),
            assessment: None,
            began_ms,
            queued: start.queued,
            finish: None,
            dropped_turns: None,
            reported: None,
            metered: start.metered,
        }
    }

    pub fn route(&self) -> Route {
        self.deployment.route()
    }

    pub fn observe(&mut self, event: &Event, now_ms: f64) {
        self.first_tokens.observe(event);
        let pieces = output_pieces(event);
        if pieces > 0 {
            self.output_events += u64::from(pieces);
            self.first_token_ms.get_or_insert(now_ms);
        }
        match event {
            Event::Truncated { turns } => self.dropped_turns = Some(*turns),
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::Energy(figure) => self.reported = Some(*figure),
            Event::Done(finish) => self.finish = Some(*finish),
            _ => {}
        }
    }

    pub fn assessed(&mut self, confidence: f64, threshold: f64, now_ms: f64) {
        self.assessment = Some(Assessment { confidence, threshold });
        self.withheld_ms = now_ms - self.first_token_ms.unwrap_or(now_ms);
    }

    /// Keeps the first outcome.
    pub fn ended(&mut self, outcome: AttemptOutcome, error: Option<ErrorKind>) {
        if self.outcome == AttemptOutcome::Running {
            self.outcome = outcome;
            self.error = error;
        }
    }

    /// The attempt as the receipt lists it.
    pub fn on_receipt(&self, energy: Option<EnergyFigure>) -> Attempt {
        Attempt {
            model: Arc::clone(&self.model),
            route: self.route(),
            deployment: self.names_deployment.then(|| Arc::clone(&self.deployment.name)),
            carbon_zone: self.deployment.carbon_zone().map(Into::into),
            outcome: self.outcome,
            error: self.error.as_ref().map(|error| error.label().to_owned()),
            dropped_turns: self.dropped_turns,
            amortised_joules: None,
            signals: self.first_tokens.signals(),
            confidence: self.assessment.map(|assessment| assessment.confidence),
            energy,
        }
    }

    /// What pricing needs to know of the attempt.
    pub fn spent(&self, features: &Features) -> Spent {
        Spent {
            usage: self.usage,
            reported: self.reported,
            prompt_tokens: features.prompt_tokens.into(),
            output_events: self.output_events,
            media: features.needs.media,
        }
    }

    /// Whether the next candidate was tried instead.
    pub fn gave_way(&self) -> bool {
        matches!(self.outcome, AttemptOutcome::Failed | AttemptOutcome::Escalated)
    }

    /// Whether the attempt was refused before any model worked on it.
    pub fn never_ran(&self) -> bool {
        self.output_events == 0 && self.error.as_ref().is_some_and(ErrorKind::is_before_work)
    }

    /// The part of the request's reason that this attempt adds; `None` if it changed nothing.
    pub fn reason(&self) -> Option<String> {
        let Self { model, error, .. } = self;
        match (self.outcome, self.assessment) {
            (AttemptOutcome::Failed, _) => {
                let error = error.as_ref().map_or("unknown", ErrorKind::label);
                Some(format!("{model} failed ({error})"))
            }
            (AttemptOutcome::Escalated, Some(Assessment { confidence, threshold })) => {
                Some(format!(
                    "{model} looked unsure (confidence {confidence:.2}, wanted {threshold:.2})"
                ))
            }
            (_, Some(Assessment { confidence, threshold })) if confidence >= threshold => {
                Some(format!("{model} looked sure (confidence {confidence:.2})"))
            }
            _ => None,
        }
    }

    /// When the client could see the first output, milliseconds since arrival.
    pub fn shown_ms(&self) -> Option<f64> {
        self.first_token_ms.map(|first| first + self.withheld_ms)
    }
}

/// How many pieces of the answer the event carries.
pub fn output_pieces(event: &Event) -> u32 {
    match event {
        Event::Text(_)
        | Event::Reasoning(_)
        | Event::ToolCall { .. }
        | Event::ToolArguments { .. }
        | Event::Embeddings(_)
        | Event::UpstreamAnswer(_) => 1,
        Event::UpstreamChunks(chunks) => chunks.outputs(),
        _ => 0,
    }
}
