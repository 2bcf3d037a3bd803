//! Energy of a device that reports only its power: the integral of its readings. Pure.
//!
//! Energy between readings that are far apart is unknown, not the mean of both ends.

use std::time::Duration;

use super::sensor::Sample;
use crate::units::{Microjoules, MonotonicNs};

/// Power readings integrated by the trapezoid rule, exact to the microjoule.
#[derive(Debug)]
pub struct PowerIntegral {
    longest_gap_ns: u64,
    microwatts: u64,
    last: Sample,
    /// Remainder of the sum below one microjoule, in half microwatt-nanoseconds.
    rest: u128,
}

/// Half microwatt-nanoseconds per microjoule; halves, for the mean of two readings.
const UNIT: u128 = 2_000_000_000;

impl PowerIntegral {
    /// Starts at 0 with a first reading. Energy between readings further apart than `longest_gap`
    /// is unknown.
    pub fn starting_at(microwatts: u64, at: MonotonicNs, longest_gap: Duration) -> Self {
        let longest_gap_ns = u64::try_from(longest_gap.as_nanos()).unwrap_or(u64::MAX);
        let last = Sample { at, total: Microjoules::ZERO, whole: true };
        Self { longest_gap_ns, microwatts, last, rest: 0 }
    }

    /// Takes in a reading. One no later than the last is ignored.
    pub fn add(&mut self, microwatts: u64, at: MonotonicNs) -> Sample {
        let elapsed_ns = at - self.last.at;
        if elapsed_ns == 0 {
            return self.last;
        }
        let whole = elapsed_ns <= self.longest_gap_ns;
        if whole {
            let ends = u128::from(self.microwatts) + u128::from(microwatts);
            let area = (ends * u128::from(elapsed_ns)).saturating_add(self.rest);
            self.rest = area % UNIT;
            let gained = u64::try_from(area / UNIT).unwrap_or(u64::MAX);
            self.last.total += Microjoules(gained);
        }
        self.microwatts = microwatts;
        self.last = Sample { at, whole, ..self.last };
        self.last
    }

    /// The latest sample.
    pub fn last(&self) -> Sample {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> MonotonicNs {
        MonotonicNs(ms * 1_000_000)
    }

    fn integral(watts: u64) -> PowerIntegral {
        PowerIntegral::starting_at(watts * 1_000_000, ms(0), Duration::from_secs(2))
    }

    #[test]
    fn constant_power_is_power_times_time_at_any_cadence() {
        let (mut slow, mut fast) = (integral(30), integral(30));
        assert_eq!(slow.add(30_000_000, ms(2000)).total, Microjoules(60_000_000));
        for tick in 1..=2000 {
            fast.add(30_000_000, ms(tick));
        }
        assert_eq!(fast.last().total, Microjoules(60_000_000));
    }

    #[test]
    fn a_ramp_counts_half() {
        assert_eq!(integral(0).add(10_000_000, ms(1000)).total, Microjoules(5_000_000));
    }

    #[test]
    fn energy_of_a_gap_is_not_counted_and_flagged_as_missing() {
        let mut integral = integral(100);
        integral.add(100_000_000, ms(1000));
        let after = integral.add(100_000_000, ms(9000));
        assert_eq!((after.total, after.whole), (Microjoules(100_000_000), false));
        assert!(integral.add(100_000_000, ms(9050)).whole);
    }

    #[test]
    fn fractions_of_a_microjoule_are_not_lost() {
        let mut integral = PowerIntegral::starting_at(1, ms(0), Duration::from_secs(2));
        for tick in 1..=1_000 {
            integral.add(1, ms(tick));
        }
        assert_eq!(integral.last().total, Microjoules(1));
    }
}
