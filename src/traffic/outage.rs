//! An outage of the log in the process log: one error when it begins, one line when it ends. A full
//! disk must not fill the process log as well.

use super::segment::SegmentError;

/// A time in which the log cannot be written.
pub(super) struct Outage {
    /// Records lost so far.
    lost: u64,
}

impl Outage {
    pub(super) fn begun(error: &SegmentError) -> Self {
        tracing::error!(
            error = %error,
            "cannot write the traffic log; requests are served but not logged until it can be written"
        );
        Self { lost: 0 }
    }

    pub(super) fn lose(&mut self, records: u64) {
        self.lost += records;
    }

    /// The gateway stops during the outage.
    pub(super) fn never_ended(self) {
        let lost = self.lost;
        tracing::error!(
            lost,
            "the traffic log cannot be written to the end; {lost} records were lost"
        );
    }

    pub(super) fn ended(self) {
        let lost = self.lost;
        tracing::info!(lost, "the traffic log is written again; {lost} records were lost");
    }
}
