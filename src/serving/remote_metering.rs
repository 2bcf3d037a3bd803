//! Work reports to the meter on behalf of an upstream whose machine is metered from here.
//!
//! An upstream reports no steps: each piece of its answer counts as one token decoded since the
//! previous piece, and the first one also as the whole prompt.

use std::sync::Arc;

use crate::energy::{MeterHandle, OpenAttempt};
use crate::units::{AttemptId, MonotonicNs};

/// An attempt at such an upstream. Closed when dropped.
pub(super) struct RemoteMetering {
    attempt: OpenAttempt,
    prompt_tokens: u32,
    /// The time up to which work has been reported.
    reported: MonotonicNs,
    /// Pieces since then.
    unreported: u32,
    pieces: u64,
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
        let attempt = meter.open(model, attempt);
        let reported = attempt.opened();
        Self { attempt, prompt_tokens, reported, unreported: 0, pieces: 0 }
    }

    /// Reports pieces of the answer that have come.
    pub(super) fn pieces(&mut self, count: u32) {
        if count == 0 {
            return;
        }
        let is_first = self.pieces == 0;
        self.pieces += u64::from(count);
        self.unreported += count;
        let now = MonotonicNs::now();
        if is_first || now - self.reported >= REPORT_NS {
            self.report(now);
        }
    }

    /// Ends the attempt; `completion_tokens` is the upstream's count, if it sent one.
    pub(super) fn close(mut self, completion_tokens: Option<u64>) {
        self.report(MonotonicNs::now());
        let more = completion_tokens.unwrap_or(0).saturating_sub(self.pieces);
        if more > 0 {
            // Pieces of several tokens: the others were decoded over the whole time.
            let tokens = u32::try_from(more).unwrap_or(u32::MAX);
            self.attempt.work(self.attempt.opened(), self.reported, 0, tokens);
        }
    }

    fn report(&mut self, now: MonotonicNs) {
        let decode_tokens = std::mem::take(&mut self.unreported);
        let prefill_tokens = std::mem::take(&mut self.prompt_tokens);
        if decode_tokens > 0 || prefill_tokens > 0 {
            self.attempt.work(self.reported, now, prefill_tokens, decode_tokens);
        }
        self.reported = now;
    }
}

/// Reports the rest before the attempt is closed.
impl Drop for RemoteMetering {
    fn drop(&mut self) {
        self.report(MonotonicNs::now());
    }
}
