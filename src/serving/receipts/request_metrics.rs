//! Metrics of a request that has ended, and of its attempts.

use std::sync::Arc;

use crate::routing::Route;
use crate::serving::attempt_state::AttemptState;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{AttemptLabels, ModelLabels, RequestLabels, TokenLabels};
use crate::traffic::Record;
use crate::units::Dollars;

/// Counts a request by the model that answered.
pub fn count_request(metrics: &Metrics, record: &Record) {
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
        metrics.time_to_first_token_seconds.get_or_create(&labels).observe(first_token_ms / 1e3);
    }
}

/// Counts an attempt of a request that ended `ended_ms` after its arrival; `price` is what its
/// usage costs.
pub fn count_attempt(
    metrics: &Metrics,
    attempt: &AttemptState,
    price: Option<Dollars>,
    ended_ms: f64,
) {
    let route = attempt.route().label();
    let model = || Arc::clone(&attempt.model);
    let labels = AttemptLabels { model: model(), route, outcome: attempt.outcome.label() };
    metrics.attempts_total.get_or_create(&labels).inc();
    let Some(usage) = attempt.usage else { return };
    let labels = ModelLabels { model: model(), route };
    // An answer that came in one piece has no pace.
    if let (Some(first_token_ms), later @ 1.., 2..) =
        (attempt.first_token_ms, usage.completion_tokens.saturating_sub(1), attempt.output_events)
    {
        let seconds = (ended_ms - first_token_ms) / 1e3 / later as f64;
        metrics.time_per_output_token_seconds.get_or_create(&labels).observe(seconds);
    }
    let kinds = [
        ("prompt", usage.prompt_tokens),
        ("cached", usage.cached_tokens()),
        ("completion", usage.completion_tokens),
    ];
    for (kind, tokens) in kinds {
        let labels = TokenLabels { model: model(), route, kind };
        metrics.tokens_total.get_or_create(&labels).inc_by(tokens);
    }
    if let (Route::Cloud, Some(dollars)) = (attempt.route(), price) {
        metrics.cost_dollars_total.get_or_create(&labels).inc_by(dollars.0);
    }
}

/// Counts how far the length of an answer was from its prediction.
pub fn count_length_error(metrics: &Metrics, labels: &ModelLabels, error_tokens: u64) {
    metrics.output_length_predictions_total.get_or_create(labels).inc();
    metrics.output_length_error_tokens_total.get_or_create(labels).inc_by(error_tokens);
}
