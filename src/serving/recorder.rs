//! Notes on one request while it is executed, and the record they become. Prices, counts and learns
//! nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attempt_state::{AttemptStart, AttemptState};
use super::first_tokens::FirstTokens;
use super::plan::Plan;
use super::receipts::totals::Totals;
use crate::backends::{ErrorKind, Event};
use crate::openai::Usage;
use crate::traffic::lookup::arrival_ms;
use crate::traffic::record::RECORD_VERSION;
use crate::traffic::{Attempt, AttemptOutcome, Outcome, Prompt, Receipt, Record, Timings};
use crate::units::{AttemptId, Dollars, unix_ms};

/// Notes on one request.
pub struct RequestRecorder {
    pub request_id: Arc<str>,
    /// Arrival, milliseconds since the Unix epoch.
    pub unix_ms: u64,
    arrived: Instant,
    decision_ms: f64,
    attempts: Vec<AttemptState>,
    closed: bool,
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    pub outcome: Outcome,
    /// HTTP status for the log.
    pub status: u16,
    /// Price of all attempts; `None` if any of them is unknown.
    pub dollars: Option<Dollars>,
}

impl RequestRecorder {
    /// Starts the clock; `deciding` has passed since arrival.
    pub fn start(request_id: Arc<str>, deciding: Duration) -> Self {
        Self {
            unix_ms: arrival_ms(&request_id).unwrap_or_else(unix_ms),
            request_id,
            arrived: Instant::now().checked_sub(deciding).unwrap_or_else(Instant::now),
            decision_ms: deciding.as_secs_f64() * 1e3,
            attempts: Vec::new(),
            closed: false,
        }
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub fn attempts(&self) -> &[AttemptState] {
        &self.attempts
    }

    /// Token counts of the last attempt; `None` until its backend reports them.
    pub fn usage(&self) -> Option<Usage> {
        self.attempts.last().and_then(|attempt| attempt.usage)
    }

    /// Whether the current attempt has produced output.
    pub fn has_output(&self) -> bool {
        self.attempts.last().is_some_and(|attempt| attempt.output_events > 0)
    }

    /// First tokens of the current attempt.
    pub fn first_tokens(&self) -> Option<&FirstTokens> {
        self.attempts.last().map(|attempt| &attempt.first_tokens)
    }

    pub fn attempt_started(&mut self, start: AttemptStart) {
        let began_ms = self.elapsed_ms();
        self.attempts.push(AttemptState::new(start, began_ms));
    }

    pub fn observe(&mut self, event: &Event) {
        let now_ms = self.elapsed_ms();
        if let Some(current) = self.attempts.last_mut() {
            current.observe(event, now_ms);
        }
    }

    /// Records the cascade's assessment of the current attempt.
    pub fn assessed(&mut self, confidence: f64, threshold: f64) {
        let now_ms = self.elapsed_ms();
        if let Some(current) = self.attempts.last_mut() {
            current.assessed(confidence, threshold, now_ms);
        }
    }

    /// Records how the current attempt ended; an earlier outcome stays.
    pub fn attempt_ended(&mut self, outcome: AttemptOutcome, error: Option<ErrorKind>) {
        if let Some(current) = self.attempts.last_mut() {
            current.ended(outcome, error);
        }
    }

    /// Attempts that the meter settles, with their index in the receipt.
    pub fn metered(&self) -> Vec<(AttemptId, usize)> {
        let settles = |attempt: &AttemptState| attempt.metered && !attempt.never_ran();
        let indexed = self.attempts.iter().enumerate();
        indexed
            .filter(|(_, attempt)| settles(attempt))
            .map(|(index, attempt)| (attempt.id, index))
            .collect()
    }

    /// The receipt so far.
    pub fn receipt(&self, plan: &Plan, attempts: Vec<Attempt>, totals: Totals) -> Receipt {
        let answering = self.attempts.last().filter(|attempt| !attempt.gave_way());
        Receipt {
            request_id: Arc::clone(&self.request_id),
            policy: Arc::clone(&plan.policy.name),
            route: answering.map(AttemptState::route),
            model: answering.map(|attempt| Arc::clone(&attempt.model)),
            reason: self.reason(plan),
            candidates: Arc::clone(&plan.decision.evaluated),
            energy: totals.energy,
            carbon: totals.carbon,
            electricity_dollars: totals.electricity_dollars,
            attempts,
        }
    }

    /// The decision's reason, and how earlier choices ended.
    fn reason(&self, plan: &Plan) -> Arc<str> {
        let turns: Vec<String> = self.attempts.iter().filter_map(AttemptState::reason).collect();
        if turns.is_empty() {
            Arc::clone(&plan.reason)
        } else {
            format!("{}; {}", plan.reason, turns.join(", ")).into()
        }
    }

    /// Closes the notes and turns them into a record.
    pub fn close(
        &mut self,
        plan: &Plan,
        receipt: Receipt,
        ending: Ending,
        prompt: Option<Prompt>,
    ) -> Record {
        self.closed = true;
        Record {
            version: RECORD_VERSION,
            unix_ms: self.unix_ms,
            receipt,
            outcome: ending.outcome,
            status: ending.status,
            features: plan.features,
            rule: plan.rule.clone(),
            overrides: plan.overrides.clone(),
            propensity: plan.decision.propensity,
            session: plan.session,
            timings: self.timings(),
            usage: self.usage(),
            dollars: ending.dollars,
            shadow: plan.shadow.clone(),
            label: None,
            prompt,
        }
    }

    fn timings(&self) -> Timings {
        Timings {
            decision_ms: self.decision_ms,
            first_token_ms: self.attempts.last().and_then(AttemptState::shown_ms),
            total_ms: self.elapsed_ms(),
        }
    }

    fn elapsed_ms(&self) -> f64 {
        self.arrived.elapsed().as_secs_f64() * 1e3
    }
}
