//! A stretch of time with the energy that a device used in it. Pure.

use crate::units::{Microjoules, MonotonicNs};

/// What a device used between two good readings of its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub start: MonotonicNs,
    pub end: MonotonicNs,
    pub energy: Microjoules,
}

impl Interval {
    /// Nanoseconds of the interval between `start` and `end`.
    pub fn overlap_ns(self, start: MonotonicNs, end: MonotonicNs) -> u64 {
        self.end.min(end) - self.start.max(start)
    }
}
