//! A stretch of time with the energy that a device used in it. Pure.

use crate::units::{Microjoules, MonotonicNs};

/// What a device used between two good readings of its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub start: MonotonicNs,
    pub end: MonotonicNs,
    pub energy: Microjoules,
    /// Whether that is all it used. If not, nothing of it is charged to anything: it is booked as
    /// unknown.
    pub whole: bool,
}

impl Interval {
    pub fn length_ns(self) -> u64 {
        self.end - self.start
    }

    /// Nanoseconds of the interval between `start` and `end`.
    pub fn overlap_ns(self, start: MonotonicNs, end: MonotonicNs) -> u64 {
        self.end.min(end) - self.start.max(start)
    }

    /// Nanoseconds of the interval in at least one of the spans.
    pub fn covered_ns(self, spans: impl Iterator<Item = (MonotonicNs, MonotonicNs)>) -> u64 {
        let clipped = spans.map(|(start, end)| (start.max(self.start), end.min(self.end)));
        let mut inside: Vec<_> = clipped.filter(|(start, end)| start < end).collect();
        inside.sort_unstable();
        let (mut covered, mut until) = (0, self.start);
        for (start, end) in inside {
            covered += end - start.max(until);
            until = until.max(end);
        }
        covered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_several_spans_counts_once() {
        let at = MonotonicNs;
        let interval =
            Interval { start: at(10), end: at(100), energy: Microjoules(1), whole: true };
        let covered = |spans: &[(u64, u64)]| {
            interval.covered_ns(spans.iter().map(|&(start, end)| (at(start), at(end))))
        };
        assert_eq!(covered(&[]), 0);
        assert_eq!(covered(&[(0, 20), (15, 30), (50, 60), (55, 58), (95, 200)]), 35);
        assert_eq!(covered(&[(0, 500), (20, 30)]), 90);
    }
}
