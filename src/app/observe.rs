//! Forwards engine reports to the energy meter and to the metrics.

use std::sync::Arc;
use std::time::Duration;

use crate::backends::llama::{EngineObserver, StepReport, UnloadReason};
use crate::energy::{AttemptObserver, MeterHandle, WorkRow, WorkSpan};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{CacheLabels, ModelNameLabels, UnloadLabels};
use crate::units::AttemptId;

/// An engine observer that feeds the meter and the metrics.
pub struct Observer {
    pub meter: MeterHandle,
    pub metrics: Arc<Metrics>,
}

impl EngineObserver for Observer {
    fn engine_started(&self, model: &Arc<str>, pid: u32) {
        self.meter.engine_started(model, pid);
    }

    fn engine_ready(&self, model: &Arc<str>, took: Duration) {
        self.meter.engine_ready(model);
        let labels = ModelNameLabels { model: Arc::clone(model) };
        self.metrics.model_loads_total.get_or_create(&labels).inc();
        self.metrics.model_load_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    fn engine_unloaded(&self, model: &Arc<str>, reason: UnloadReason) {
        let labels = UnloadLabels { model: Arc::clone(model), reason: reason.label() };
        self.metrics.model_unloads_total.get_or_create(&labels).inc();
    }

    fn engine_stopped(&self, model: &Arc<str>, pid: u32) {
        self.meter.engine_stopped(model, pid);
    }

    fn step(&self, model: &Arc<str>, step: &StepReport) {
        count_step(&self.metrics, model, step);
    }
}

impl AttemptObserver for Observer {
    fn attempt_opened(&self, model: &Arc<str>, attempt: AttemptId) {
        self.meter.attempt_opened(model, attempt);
    }

    fn attempt_admitted(&self, model: &Arc<str>, _attempt: AttemptId, waited: Duration) {
        let labels = ModelNameLabels { model: Arc::clone(model) };
        self.metrics.engine_queue_wait_seconds.get_or_create(&labels).observe(waited.as_secs_f64());
    }

    fn work(&self, model: &Arc<str>, span: &WorkSpan) {
        self.meter.work(model, span);
    }

    fn attempt_closed(&self, model: &Arc<str>, attempt: AttemptId) {
        self.meter.attempt_closed(model, attempt);
    }

    fn attempt_unserved(&self, model: &Arc<str>, attempt: AttemptId) {
        self.meter.attempt_unserved(model, attempt);
    }
}

fn count_step(metrics: &Metrics, model: &Arc<str>, step: &StepReport) {
    let labels = ModelNameLabels { model: Arc::clone(model) };
    let tokens =
        |of: fn(&WorkRow) -> u32| step.work.rows.iter().map(of).map(u64::from).sum::<u64>();
    let (prefill, decode) = (tokens(|row| row.prefill_tokens), tokens(|row| row.decode_tokens));
    let seconds_per_token = Duration::from_nanos(step.work.end - step.work.start).as_secs_f64()
        / (prefill + decode).max(1) as f64;
    for (tokens, tokens_total, seconds_total) in [
        (prefill, &metrics.engine_prefill_tokens_total, &metrics.engine_prefill_seconds_total),
        (decode, &metrics.engine_decode_tokens_total, &metrics.engine_decode_seconds_total),
    ] {
        tokens_total.get_or_create(&labels).inc_by(tokens);
        seconds_total.get_or_create(&labels).inc_by(seconds_per_token * tokens as f64);
    }
    let busy = u32::try_from(step.work.rows.len()).unwrap_or(u32::MAX);
    metrics.engine_busy_slots.get_or_create(&labels).observe(busy.into());
    let drafted = step.drafted;
    for (tokens, total) in [
        (drafted.tokens, &metrics.engine_drafted_tokens_total),
        (drafted.accepted, &metrics.engine_accepted_tokens_total),
    ] {
        total.get_or_create(&labels).inc_by(tokens.into());
    }
    let reused = step.reused;
    for (from, tokens) in [("slot", reused.slot), ("shared", reused.shared), ("host", reused.host)]
    {
        let labels = CacheLabels { model: Arc::clone(model), from };
        metrics.engine_cached_tokens_total.get_or_create(&labels).inc_by(tokens.into());
    }
}
