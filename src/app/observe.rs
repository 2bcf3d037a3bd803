//! Joins engines to the meter: what an engine did becomes work the ledger can attribute.

use std::sync::Arc;
use std::time::Duration;

use crate::backends::llama::{EngineObserver, StepReport, StepRow, UnloadReason};
use crate::energy::{MeterHandle, WorkRow, WorkSpan};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{ModelNameLabels, UnloadLabels};
use crate::units::AttemptId;

/// Passes everything an engine reports on to the meter, and counts loads.
pub struct MeterObserver {
    pub meter: MeterHandle,
    pub metrics: Arc<Metrics>,
}

impl EngineObserver for MeterObserver {
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

    fn attempt_opened(&self, model: &Arc<str>, attempt: AttemptId) {
        self.meter.attempt_opened(model, attempt);
    }

    fn step(&self, model: &Arc<str>, step: &StepReport) {
        let row = |row: &StepRow| WorkRow {
            attempt: row.attempt,
            prefill_tokens: row.prefill_tokens,
            decode_tokens: row.decode_tokens,
        };
        let rows = step.rows.iter().map(row).collect();
        self.meter.work(model, WorkSpan { start: step.start, end: step.end, rows });
    }

    fn attempt_closed(&self, model: &Arc<str>, attempt: AttemptId) {
        self.meter.attempt_closed(model, attempt);
    }
}
