//! Reports to the meter what an upstream that is metered from here works on, as an engine does of itself.
//!
//! An upstream tells no steps: a piece of its answer stands for a token decoded since the piece before, and the first
//! one for the reading of the prompt as well.

use std::sync::Arc;

use crate::energy::{MeterHandle, WorkRow, WorkSpan};
use crate::units::{AttemptId, MonotonicNs};

/// An attempt at such an upstream. Closes itself when dropped.
pub(super) struct RemoteMetering {
    meter: MeterHandle,
    model: Arc<str>,
    attempt: AttemptId,
    prompt_tokens: u32,
    opened: MonotonicNs,
    /// Up to when work has been reported.
    reported: MonotonicNs,
    /// Pieces since then.
    waiting: u32,
    pieces: u64,
    closed: bool,
}

/// Pieces are reported together: more often than this would tell the meter nothing.
const REPORT_NS: u64 = 50_000_000;

impl RemoteMetering {
    /// None unless the model's machine is metered from here.
    pub(super) fn open(
        meter: &MeterHandle,
        model: &Arc<str>,
        attempt: AttemptId,
        prompt_tokens: u32,
    ) -> Option<Self> {
        if !meter.meters_elsewhere(model) {
            return None;
        }
        meter.attempt_opened(model, attempt);
        let opened = MonotonicNs::now();
        Some(Self {
            meter: meter.clone(),
            model: Arc::clone(model),
            attempt,
            prompt_tokens,
            opened,
            reported: opened,
            waiting: 0,
            pieces: 0,
            closed: false,
        })
    }

    /// A piece of the answer has come.
    pub(super) fn piece(&mut self) {
        self.pieces += 1;
        self.waiting += 1;
        let now = MonotonicNs::now();
        if self.pieces == 1 || now - self.reported >= REPORT_NS {
            self.report(now);
        }
    }

    /// The answer has ended; `completion_tokens` if the upstream has counted them.
    pub(super) fn close(&mut self, completion_tokens: Option<u64>) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let now = MonotonicNs::now();
        self.report(now);
        let more = completion_tokens.unwrap_or(0).saturating_sub(self.pieces);
        if more > 0 {
            // An answer that came in few pieces: its tokens were decoded all along.
            let decode_tokens = u32::try_from(more).unwrap_or(u32::MAX);
            self.work(
                self.opened,
                now,
                WorkRow { attempt: self.attempt, prefill_tokens: 0, decode_tokens },
            );
        }
        self.meter.attempt_closed(&self.model, self.attempt);
    }

    fn report(&mut self, now: MonotonicNs) {
        let decode_tokens = std::mem::take(&mut self.waiting);
        let prefill_tokens = std::mem::take(&mut self.prompt_tokens);
        if decode_tokens > 0 || prefill_tokens > 0 {
            let row = WorkRow { attempt: self.attempt, prefill_tokens, decode_tokens };
            self.work(self.reported, now, row);
        }
        self.reported = now;
    }

    fn work(&self, start: MonotonicNs, end: MonotonicNs, row: WorkRow) {
        self.meter.work(&self.model, WorkSpan { start, end, rows: vec![row] });
    }
}

impl Drop for RemoteMetering {
    fn drop(&mut self) {
        self.close(None);
    }
}
