//! Metrics of outcomes and predictions, as sums that Prometheus can divide: outcomes with the
//! joules and seconds of exactly the requests that have one, predicted against metered energy,
//! predicted adequacy against scores.
//!
//! Keeps no state. A counter cannot fall, so the part that a corrected verdict withdraws has a
//! counter of its own.

use std::sync::Arc;

use crate::energy::Source as EnergySource;
use crate::routing::Route;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{CalibrationLabels, ModelLabels, OutcomeLabels, SignLabels};
use crate::traffic::{Attempt, AttemptOutcome, ImplicitSignal, Record, VerdictSource};

/// Tenths of predicted adequacy.
const DECILES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// Counts a verdict on a request whose energy has settled; `before` is the earlier score of the
/// same source.
pub fn count_outcome(
    metrics: &Metrics,
    record: &Record,
    source: &VerdictSource,
    score: f64,
    before: Option<f64>,
) {
    let outcome = outcome_labels(record, source);
    let calibration = predicted(record).map(|p| (p, calibration_labels(record, source, p)));
    let change = score - before.unwrap_or(0.0);
    // Both, even by 0: a query that subtracts one from the other needs both.
    for (scores, calibrated, part) in [
        (&metrics.outcome_score_total, &metrics.calibration_score_total, change.max(0.0)),
        (
            &metrics.outcome_score_withdrawn_total,
            &metrics.calibration_score_withdrawn_total,
            (-change).max(0.0),
        ),
    ] {
        scores.get_or_create(&outcome).inc_by(part);
        if let Some((_, labels)) = &calibration {
            calibrated.get_or_create(labels).inc_by(part);
        }
    }
    if before.is_some() {
        return;
    }
    metrics.outcomes_total.get_or_create(&outcome).inc();
    let seconds = record.timings.total_ms / 1e3;
    if let Some(joules) = record.receipt.energy.and_then(|energy| energy.joules) {
        metrics.outcome_energy_joules_total.get_or_create(&outcome).inc_by(joules.0);
        let watts = joules.0 / seconds;
        let watts = if watts.is_finite() { watts } else { 0.0 };
        metrics.outcome_power_watts_total.get_or_create(&outcome).inc_by(watts);
    }
    metrics.outcome_duration_seconds_total.get_or_create(&outcome).inc_by(seconds);
    if let Some((p, labels)) = calibration {
        metrics.calibration_outcomes_total.get_or_create(&labels).inc();
        metrics.calibration_p_total.get_or_create(&labels).inc_by(p);
    }
}

/// Counts an implicit signal about a request.
pub fn count_signal(metrics: &Metrics, record: &Record, signal: ImplicitSignal) {
    let labels = SignLabels {
        model: model(record),
        policy: Arc::clone(&record.receipt.policy),
        route: route(record),
        signal: signal.label(),
    };
    metrics.weak_signals_total.get_or_create(&labels).inc();
}

/// Compares the metered energy of a settled answer with what was predicted. Figures of the class
/// table are not measurements, and an attempt that loaded its model first is not comparable.
pub fn compare_energy(metrics: &Metrics, record: &Record, attempt: &Attempt) {
    let Some(energy) = attempt.energy.filter(|energy| energy.source != EnergySource::CloudTable)
    else {
        return;
    };
    let judged = record.receipt.candidates.iter().map(|judged| &judged.candidate);
    let mut candidates = judged.filter(|one| one.model == attempt.model && one.state.is_none());
    let predicted = candidates.next().and_then(|candidate| candidate.joules);
    if let (Some(metered), Some(predicted)) = (energy.joules, predicted)
        && attempt.outcome == AttemptOutcome::Answered
        && predicted.0 > 0.0
    {
        let labels = ModelLabels { model: attempt.model.clone(), route: attempt.route.label() };
        let ratio = metered.0 / predicted.0;
        metrics.energy_prediction_ratio.get_or_create(&labels).observe(ratio);
    }
}

/// Predicted adequacy of the model that answered.
fn predicted(record: &Record) -> Option<f64> {
    let model = record.receipt.model.as_ref()?;
    let candidates = &record.receipt.candidates;
    candidates.iter().find(|one| one.candidate.model == *model).map(|one| one.candidate.p)
}

fn outcome_labels(record: &Record, source: &VerdictSource) -> OutcomeLabels {
    let energy = record.receipt.energy.filter(|energy| energy.joules.is_some());
    OutcomeLabels {
        model: model(record),
        policy: Arc::clone(&record.receipt.policy),
        route: route(record),
        source: source.label(),
        quality: energy.map_or("unknown", |energy| energy.quality.label()),
    }
}

fn calibration_labels(record: &Record, source: &VerdictSource, p: f64) -> CalibrationLabels {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "p is 0 to 1")]
    let decile = ((p * 10.0) as usize).min(DECILES.len() - 1);
    CalibrationLabels { model: model(record), source: source.label(), decile: DECILES[decile] }
}

fn model(record: &Record) -> Arc<str> {
    record.receipt.model.clone().unwrap_or_else(|| "none".into())
}

fn route(record: &Record) -> &'static str {
    record.receipt.route.map_or("none", Route::label)
}
