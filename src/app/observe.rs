//! Joins engines to the meter: what an engine did becomes work the ledger can attribute.

use std::sync::Arc;

use crate::backends::llama::{EngineObserver, StepReport, StepRow};
use crate::energy::{MeterHandle, WorkRow, WorkSpan};
use crate::units::AttemptId;

/// Passes everything an engine reports on to the meter.
pub struct MeterObserver(pub MeterHandle);

impl EngineObserver for MeterObserver {
    fn engine_started(&self, model: &Arc<str>, pid: u32) {
        self.0.engine_started(model, pid);
    }

    fn engine_stopped(&self, model: &Arc<str>, pid: u32) {
        self.0.engine_stopped(model, pid);
    }

    fn attempt_opened(&self, model: &Arc<str>, attempt: AttemptId) {
        self.0.attempt_opened(model, attempt);
    }

    fn step(&self, model: &Arc<str>, step: &StepReport) {
        let row = |row: &StepRow| WorkRow {
            attempt: row.attempt,
            prefill_tokens: row.prefill_tokens,
            decode_tokens: row.decode_tokens,
        };
        let rows = step.rows.iter().map(row).collect();
        self.0.work(model, WorkSpan { start: step.start, end: step.end, rows });
    }

    fn attempt_closed(&self, model: &Arc<str>, attempt: AttemptId) {
        self.0.attempt_closed(model, attempt);
    }
}
