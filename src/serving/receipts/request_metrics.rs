//! Metrics of a request that has ended, and of its attempts.

use std::sync::Arc;

use crate::routing::Route;
use crate::serving::attempt_state::AttemptState;
use crate::telemetry::metrics::{AttemptLabels, ModelLabels, RequestLabels};
use crate::telemetry::{Metrics, ModelSeries};
use crate::traffic::Record;
use crate::units::Dollars;

/// Counts a request; `answering` are the series of the model that answered.
pub fn count_request(metrics: &Metrics, answering: Option<&ModelSeries>, record: &Record) {
    let receipt = &record.receipt;
    let route = receipt.route.map_or("none", Route::label);
    let model: Arc<str> = receipt.model.clone().unwrap_or_else(|| "none".into());
    let outcome = record.outcome.label();
    let labels = RequestLabels { model: Arc::clone(&model), route, outcome };
    metrics.requests_total.get_or_create(&labels).inc();
    let unanswered;
    let series = if let Some(series) = answering {
        series
    } else {
        unanswered = ModelSeries::new(metrics, &ModelLabels { model, route });
        &unanswered
    };
    series.request_duration_seconds.observe(record.timings.total_ms / 1e3);
    if let Some(first_token_ms) = record.timings.first_token_ms {
        series.time_to_first_token_seconds.observe(first_token_ms / 1e3);
    }
}

/// Counts an attempt of a request that ended `ended_ms` after its arrival; `price` is what its
/// usage costs.
pub fn count_attempt(
    metrics: &Metrics,
    series: &ModelSeries,
    attempt: &AttemptState,
    price: Option<Dollars>,
    ended_ms: f64,
) {
    let (model, route) = (Arc::clone(&attempt.model), attempt.route().label());
    let labels = AttemptLabels { model, route, outcome: attempt.outcome.label() };
    metrics.attempts_total.get_or_create(&labels).inc();
    let Some(usage) = attempt.usage else { return };
    // An answer that came in one piece has no pace.
    if let (Some(first_token_ms), later @ 1.., 2..) =
        (attempt.first_token_ms, usage.completion_tokens.saturating_sub(1), attempt.output_events)
    {
        let seconds = (ended_ms - first_token_ms) / 1e3 / later as f64;
        series.time_per_output_token_seconds.observe(seconds);
    }
    series.prompt_tokens.inc_by(usage.prompt_tokens);
    series.cached_tokens.inc_by(usage.cached_tokens());
    series.completion_tokens.inc_by(usage.completion_tokens);
    if let (Route::Cloud, Some(dollars)) = (attempt.route(), price) {
        series.cost_dollars.inc_by(dollars.0);
    }
}

/// Counts how far the length of an answer was from its prediction.
pub fn count_length_error(series: &ModelSeries, error_tokens: u64) {
    series.output_length_predictions.inc();
    series.output_length_error_tokens.inc_by(error_tokens);
}
