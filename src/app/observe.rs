//! Forwards engine reports to the energy meter and to the metrics.

use std::sync::Arc;
use std::time::Duration;

use crate::backends::llama::{EngineObserver, StepReport, UnloadReason};
use crate::energy::{AttemptObserver, MeterHandle, WorkRow, WorkSpan};
use crate::telemetry::metrics::{ModelNameLabels, UnloadLabels};
use crate::telemetry::{EngineSeries, Metrics};
use crate::units::AttemptId;

/// An engine observer that feeds the meter and the metrics.
pub struct Observer {
    meter: MeterHandle,
    metrics: Arc<Metrics>,
    series: EngineSeries,
}

impl Observer {
    pub fn new(meter: MeterHandle, metrics: Arc<Metrics>, model: &Arc<str>) -> Self {
        let series = EngineSeries::new(&metrics, model);
        Self { meter, metrics, series }
    }
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

    fn step(&self, _model: &Arc<str>, step: &StepReport) {
        count_step(&self.series, step);
    }
}

impl AttemptObserver for Observer {
    fn attempt_opened(&self, model: &Arc<str>, attempt: AttemptId) {
        self.meter.attempt_opened(model, attempt);
    }

    fn attempt_admitted(&self, _model: &Arc<str>, _attempt: AttemptId, waited: Duration) {
        self.series.queue_wait_seconds.observe(waited.as_secs_f64());
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

fn count_step(series: &EngineSeries, step: &StepReport) {
    let tokens =
        |of: fn(&WorkRow) -> u32| step.work.rows.iter().map(of).map(u64::from).sum::<u64>();
    let (prefill, decode) = (tokens(|row| row.prefill_tokens), tokens(|row| row.decode_tokens));
    let seconds_per_token = Duration::from_nanos(step.work.end - step.work.start).as_secs_f64()
        / (prefill + decode).max(1) as f64;
    series.prefill_tokens.inc_by(prefill);
    series.prefill_seconds.inc_by(seconds_per_token * prefill as f64);
    series.decode_tokens.inc_by(decode);
    series.decode_seconds.inc_by(seconds_per_token * decode as f64);
    let busy = u32::try_from(step.work.rows.len()).unwrap_or(u32::MAX);
    series.busy_slots.observe(busy.into());
    series.drafted_tokens.inc_by(step.drafted.tokens.into());
    series.accepted_tokens.inc_by(step.drafted.accepted.into());
    series.slot_cached_tokens.inc_by(step.reused.slot.into());
    series.shared_cached_tokens.inc_by(step.reused.shared.into());
    series.host_cached_tokens.inc_by(step.reused.host.into());
}
