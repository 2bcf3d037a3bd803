//! Work reports to the meter on behalf of an upstream whose machine is metered from here.
//!
//! An upstream reports no steps: each piece of its answer counts as one token decoded since the
//! previous piece, and the first one also as the whole prompt.

use std::sync::Arc;

use crate::energy::{MeterHandle, WorkRow, WorkSpan};
use crate::units::{AttemptId, MonotonicNs};

/// An attempt at such an upstream. Closed when dropped.
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

/// Shortest time between reports: the meter resolves no finer.
const REPORT_NS: u64 = 50_000_000;

impl RemoteMetering {
    pub(super) fn open(
        meter: &MeterHandle,
        model: &Arc<str>,
        attempt: AttemptId,
        prompt_tokens: u32,
    ) -> Self {
        meter.attempt_opened(model, attempt);
        let opened = MonotonicNs::now();
        Self {
            meter: meter.clone(),
            model: Arc::clone(model),
            attempt,
            prompt_tokens,
            opened,
            reported: opened,
            waiting: 0,
            pieces: 0,
            closed: false,
        }
    }

    /// Counts a piece of the answer.
    pub(super) fn piece(&mut self) {
        self.pieces += 1;
        self.waiting += 1;
        let now = MonotonicNs::now();
        if self.pieces == 1 || now - self.reported >= REPORT_NS {
            self.report(now);
        }
    }

    /// Ends the attempt; `completion_tokens` is the upstream's count, if it sent one.
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
