//! Cumulative energy from a raw hardware counter; distinguishes wraps, resets, jumps and
//! standstill. Pure: readings and times are arguments.

use std::sync::Arc;
use std::time::Duration;

use super::sensor::{Sample, SensorError};
use crate::units::{Microjoules, MonotonicNs};

/// What a decrease of a raw counter means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The counter wraps to 0 after this value (RAPL's `max_energy_range_uj`).
    WrapsAt(Microjoules),
    /// The counter is wide enough never to wrap: a decrease is a driver reload.
    Never,
}

/// A raw counter in microjoules and its gain since the first reading.
#[derive(Debug)]
pub struct Counter {
    device: Arc<str>,
    overflow: Overflow,
    raw: u64,
    /// The latest sample: when the raw value last changed.
    last: Sample,
    standstill_ns: u64,
    stands_still: bool,
    resets: u64,
}

/// Mean power between two reads above which the difference is neither consumption nor a wrap: the
/// counter was reset, as after a suspend, or holds garbage. No package or card comes within a
/// factor of 10 of it.
const IMPLAUSIBLE_WATTS: u128 = 20_000;

/// Microjoules allowed on top of that: the step of a coarse counter.
const STEP: u128 = 10_000_000;

/// Nanoseconds without a change after which a counter is stuck; even those of cards change every
/// 100 ms.
const STANDSTILL_NS: u64 = 5_000_000_000;

impl Counter {
    /// Starts at 0 with the raw counter at `raw`.
    pub fn starting_at(raw: u64, at: MonotonicNs, device: Arc<str>, overflow: Overflow) -> Self {
        let last = Sample { at, total: Microjoules::ZERO, whole: true };
        Self {
            device,
            overflow,
            raw,
            last,
            standstill_ns: STANDSTILL_NS,
            stands_still: false,
            resets: 0,
        }
    }

    /// Sets the time without a change after which the counter is stuck, for one that changes more
    /// rarely than a device's.
    #[must_use]
    pub fn standing_still_after(mut self, standstill: Duration) -> Self {
        self.standstill_ns = u64::try_from(standstill.as_nanos()).unwrap_or(u64::MAX);
        self
    }

    /// Takes in a good reading; failed ones must not be passed. After a reset, the gain since the
    /// restart is counted if it is plausible.
    pub fn advance(&mut self, raw: u64, now: MonotonicNs) -> Result<Sample, SensorError> {
        let elapsed_ns = now - self.last.at;
        if raw == self.raw {
            if elapsed_ns < self.standstill_ns {
                return Ok(self.last);
            }
            self.stands_still = true;
            let seconds = elapsed_ns / 1_000_000_000;
            return Err(SensorError::Frozen { device: Arc::clone(&self.device), seconds });
        }
        let gained = self.gained(raw, elapsed_ns);
        self.resets += u64::from(gained.is_none());
        // The gain while the counter was stuck is unknown.
        let whole = gained.is_some() && !std::mem::take(&mut self.stands_still);
        let gained = gained.or_else(|| plausible(raw, elapsed_ns)).unwrap_or(0);
        self.raw = raw;
        self.last = Sample { at: now, total: self.last.total + Microjoules(gained), whole };
        Ok(self.last)
    }

    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// The gain since the last reading; `None` if the counter was reset or jumped.
    fn gained(&self, raw: u64, elapsed_ns: u64) -> Option<u64> {
        let gained = match raw.checked_sub(self.raw) {
            Some(gained) => gained,
            // Up to the range, then from 0. Several wraps in one gap look like one.
            None => match self.overflow {
                Overflow::WrapsAt(range) => range.0.checked_sub(self.raw)?.checked_add(raw)?,
                Overflow::Never => return None,
            },
        };
        plausible(gained, elapsed_ns)
    }
}

fn plausible(gained: u64, elapsed_ns: u64) -> Option<u64> {
    // 1 W is 1 µJ per 1,000 ns.
    let most = u128::from(elapsed_ns) * IMPLAUSIBLE_WATTS / 1000 + STEP;
    (u128::from(gained) <= most).then_some(gained)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RANGE: u64 = 262_143_328_850;

    fn ms(ms: u64) -> MonotonicNs {
        MonotonicNs(ms * 1_000_000)
    }

    fn counter(raw: u64, overflow: Overflow) -> Counter {
        Counter::starting_at(raw, ms(0), "c".into(), overflow)
    }

    fn sample(at: u64, total: u64, whole: bool) -> Sample {
        Sample { at: ms(at), total: Microjoules(total), whole }
    }

    #[test]
    fn a_wrapping_counter_goes_on_past_its_range() {
        let mut counter = counter(990, Overflow::WrapsAt(Microjoules(1000)));
        assert_eq!(counter.advance(5, ms(50)).unwrap(), sample(50, 15, true));
        assert_eq!(counter.advance(25, ms(100)).unwrap(), sample(100, 35, true));
        assert_eq!(counter.resets(), 0);
    }

    /// Others added 2⁶⁴ here, and a driver reload became 1.8 · 10¹⁶ J.
    #[test]
    fn a_decrease_of_a_counter_that_never_wraps_is_a_reset_and_not_an_astronomic_gain() {
        let mut counter = counter(5_000_000, Overflow::Never);
        assert_eq!(counter.advance(6_000_000, ms(50)).unwrap(), sample(50, 1_000_000, true));
        assert_eq!(counter.advance(300, ms(100)).unwrap(), sample(100, 1_000_300, false));
        assert_eq!(counter.resets(), 1);
        assert!(counter.advance(400, ms(150)).unwrap().whole);
    }

    #[test]
    fn a_wrap_that_would_need_impossible_power_is_a_reset() {
        let mut counter = counter(200_000_000_000, Overflow::WrapsAt(Microjoules(RANGE)));
        assert_eq!(counter.advance(40, ms(50)).unwrap(), sample(50, 40, false));
        assert_eq!(counter.resets(), 1);
    }

    #[test]
    fn garbage_ahead_is_neither_counted_nor_held_against_what_follows() {
        let mut counter = counter(1000, Overflow::Never);
        assert_eq!(counter.advance(u64::MAX, ms(50)).unwrap(), sample(50, 0, false));
        assert_eq!(counter.advance(2000, ms(100)).unwrap(), sample(100, 2000, false));
        assert_eq!(counter.advance(2500, ms(150)).unwrap(), sample(150, 2500, true));
        assert_eq!(counter.resets(), 2);
    }

    /// Others returned 0 for a failed read, and took the next good one for a wrap.
    #[test]
    fn a_read_error_leaves_the_counter_where_it_was() {
        let mut counter = counter(700_000, Overflow::WrapsAt(Microjoules(RANGE)));
        assert_eq!(counter.advance(900_000, ms(2000)).unwrap(), sample(2000, 200_000, true));
        assert_eq!(counter.resets(), 0);
    }

    #[test]
    fn a_slow_counters_step_covers_the_time_since_the_step_before() {
        let mut counter = counter(0, Overflow::Never);
        assert_eq!(counter.advance(7, ms(100)).unwrap(), sample(100, 7, true));
        assert_eq!(counter.advance(7, ms(150)).unwrap(), sample(100, 7, true));
        assert_eq!(counter.advance(19, ms(200)).unwrap(), sample(200, 19, true));
    }

    /// Others printed 0 W.
    #[test]
    fn a_stuck_counter_is_an_error_and_its_missed_energy_unknown() {
        let mut counter = counter(5, Overflow::Never);
        counter.advance(6, ms(100)).unwrap();
        assert!(counter.advance(6, ms(5000)).is_ok());
        assert_eq!(counter.advance(6, ms(5100)).unwrap_err().label(), "frozen");
        assert_eq!(counter.advance(16, ms(6000)).unwrap(), sample(6000, 11, false));
        assert_eq!(counter.advance(17, ms(6050)).unwrap(), sample(6050, 12, true));
    }

    proptest! {
        #[test]
        fn wraps_lose_and_invent_nothing(
            start in 0u64..1000, gains in proptest::collection::vec(0u64..1000, 0..50),
        ) {
            let range = 1000;
            let mut counter = counter(start, Overflow::WrapsAt(Microjoules(range)));
            let mut truth = start;
            for (gain, at) in gains.iter().zip(1..) {
                truth += gain;
                counter.advance(truth % range, ms(at * 50)).unwrap();
            }
            prop_assert_eq!(counter.last.total, Microjoules(truth - start));
            prop_assert_eq!(counter.resets(), 0);
        }

        #[test]
        fn no_reading_whatever_makes_the_total_fall_or_leap(
            readings in proptest::collection::vec((any::<u64>(), 0u64..10_000), 0..40), wraps: bool,
        ) {
            let overflow =
                if wraps { Overflow::WrapsAt(Microjoules(RANGE)) } else { Overflow::Never };
            let mut counter = counter(RANGE / 2, overflow);
            let (mut now, mut total) = (0, 0);
            for (raw, passed) in readings {
                now += passed;
                let Ok(sample) = counter.advance(raw, ms(now)) else { continue };
                prop_assert!(sample.total.0 >= total && sample.at <= ms(now));
                total = sample.total.0;
            }
            // 20 kW for all the time, and a step for each reading.
            prop_assert!(total <= now * 20_000_000 + 40 * 10_000_000, "{total} in {now} ms");
        }
    }
}
