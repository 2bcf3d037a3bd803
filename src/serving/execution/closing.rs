//! The end of an execution: receipt, record, metrics, online training, and the judge's queue.

use std::sync::Arc;
use std::time::Instant;

use super::Execution;
use crate::energy::EnergyFigure;
use crate::locality::Locality;
use crate::openai::Request;
use crate::routing::Route;
use crate::routing::session::Turn;
use crate::serving::attempt_state::AttemptState;
use crate::serving::judge::answer_capture::AnswerCapture;
use crate::serving::judge::queue::{JudgeJob, runner_up};
use crate::serving::models::training;
use crate::serving::receipts::request_metrics;
use crate::serving::receipts::totals::Totals;
use crate::serving::recorder::Ending;
use crate::traffic::{Attempt, AttemptOutcome, ImplicitSignal, Outcome, Prompt, Receipt, Record};
use crate::units::Dollars;

/// Logged for a client that closed the connection, as nginx does; never sent.
const CLIENT_CLOSED_STATUS: u16 = 499;

impl Execution {
    /// The receipt so far, its energy provisional.
    pub fn receipt(&self) -> Receipt {
        let energies = self.recorder.attempts().iter().map(|attempt| self.energy(attempt));
        let attempts = self.recorder.attempts().iter().zip(energies);
        let attempts: Vec<Attempt> =
            attempts.map(|(attempt, energy)| attempt.on_receipt(energy)).collect();
        let emissions = &self.gateway.receipts.emissions;
        let totals = Totals::of(&attempts, emissions, self.recorder.unix_ms);
        self.recorder.receipt(&self.plan, attempts, totals)
    }

    /// Energy of an attempt, provisional where the meter settles it later; `None` if nothing ran.
    fn energy(&self, attempt: &AttemptState) -> Option<EnergyFigure> {
        if attempt.never_ran() {
            None
        } else if attempt.metered {
            Some(self.gateway.router.meter.provisional(attempt.id))
        } else {
            attempt.deployment.billing().actual_energy(&attempt.spent(&self.plan.features))
        }
    }

    /// Price of an attempt; `None` if unknown.
    fn dollars(&self, attempt: &AttemptState) -> Option<Dollars> {
        attempt.deployment.billing().actual_dollars(&attempt.spent(&self.plan.features))
    }

    /// Ends the execution with an answer and returns the receipt to send with it.
    pub fn answered(mut self: Box<Self>) -> Receipt {
        self.end_attempt(AttemptOutcome::Answered, None);
        if let Some(fingerprint) = self.fingerprint {
            let id = Arc::clone(&self.recorder.request_id);
            self.gateway.retries.answered(fingerprint, id, Instant::now());
        }
        let receipt = self.close(Outcome::Answered, 200);
        // Only now: a verdict must find the receipt in the store.
        self.offer_to_judge();
        receipt
    }

    /// Ends the execution with an error; `status` is the HTTP status, for the log.
    pub fn failed(mut self: Box<Self>, status: u16) -> Receipt {
        // A model that was still answering has failed too.
        self.end_attempt(AttemptOutcome::Failed, None);
        let tried = !self.recorder.attempts().is_empty();
        self.close(if tried { Outcome::Failed } else { Outcome::Refused }, status)
    }

    fn offer_to_judge(&mut self) {
        let Some(judge) = &self.gateway.judge else { return };
        let Some(answer) = self.capture.take().and_then(AnswerCapture::whole) else { return };
        let Request::Chat(chat) = &*self.request else { return };
        let model = self.plan.snapshot.models.get(judge.model());
        let job = JudgeJob {
            request_id: Arc::clone(&self.recorder.request_id),
            messages: chat.messages.clone(),
            answer,
            output_limit: chat.output_limit(),
            reach: self.plan.rule.reach(),
            runner_up: runner_up(&self.plan.decision, &self.model().name),
        };
        let nearest = model.map_or(Locality::ThirdParty, |model| model.nearest());
        judge.enqueue(job, nearest, &self.gateway.metrics);
    }

    fn close(&mut self, outcome: Outcome, status: u16) -> Receipt {
        self.events = None;
        if outcome == Outcome::Answered {
            self.remember_answer();
        }
        let receipt = self.receipt();
        let prices = self.recorder.attempts().iter().map(|attempt| self.dollars(attempt));
        let ending = Ending { outcome, status, dollars: prices.sum() };
        let prompt = Prompt::of(&self.request.messages(), self.gateway.prompts);
        let record = self.recorder.close(&self.plan, receipt.clone(), ending, prompt);
        self.count_and_train(&record);
        self.gateway.receipts.insert(record, self.recorder.metered(), self.body.len());
        receipt
    }

    fn count_and_train(&self, record: &Record) {
        let (metrics, router) = (&self.gateway.metrics, &self.gateway.router);
        let ended_ms = record.timings.total_ms;
        for attempt in self.recorder.attempts() {
            let Some(model) = self.plan.snapshot.models.get(&attempt.model) else { continue };
            let price = self.dollars(attempt);
            request_metrics::count_attempt(metrics, &model.series, attempt, price, ended_ms);
            let error = training::train(model, attempt, &record.features, ended_ms, &router.meter);
            if let Some(tokens) = error {
                request_metrics::count_length_error(&model.series, tokens);
            }
        }
        let answering = record.receipt.model.as_ref();
        let answering = answering.and_then(|model| self.plan.snapshot.models.get(model));
        let series = answering.map(|model| &model.series);
        request_metrics::count_request(metrics, series, record);
    }

    /// From now on the conversation is on this model.
    fn remember_answer(&self) {
        let (Some(session), Some(fingerprint)) = (self.plan.session, &self.plan.fingerprint) else {
            return;
        };
        let (model, usage) = (self.model(), self.recorder.usage().unwrap_or_default());
        let turn = Turn {
            model: Arc::clone(&model.name),
            route: model.route(),
            full_hash: fingerprint.full_hash,
            cached_tokens: match model.route() {
                Route::Local => usage.prompt_tokens + usage.completion_tokens,
                // A provider's cache cannot be queried: its last hit is the best estimate.
                Route::Cloud => usage.cached_tokens(),
            },
        };
        self.gateway.router.conversations.answered(session, turn);
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        if !self.recorder.is_closed() {
            // A client that waits for a whole answer has seen nothing to dislike.
            let abandoned = self.request.streams() && self.recorder.has_output();
            self.end_attempt(AttemptOutcome::Cancelled, None);
            self.close(Outcome::Cancelled, CLIENT_CLOSED_STATUS);
            if abandoned {
                self.gateway
                    .receipts
                    .record_signal(&self.recorder.request_id, ImplicitSignal::Abandon);
            }
        }
    }
}
