//! Idle power of one device: configured, or learned from times without requests. Pure.
//!
//! Never above the smallest power seen: a configured value that is too high, or one learned from a
//! busy start, would hide what requests use.

use std::collections::VecDeque;

use super::interval::Interval;
use crate::units::Microjoules;

/// Idle power and the powers it is learned from.
#[derive(Clone, Debug, Default)]
pub struct IdlePower {
    configured: Option<u64>,
    learns: bool,
    /// Time in a row without a request.
    empty: Window,
    /// Time in a row.
    all: Window,
    minutes: VecDeque<Minute>,
}

/// Smallest mean powers of a minute, in microwatts.
#[derive(Clone, Copy, Debug)]
struct Minute {
    number: u64,
    empty: Option<u64>,
    all: Option<u64>,
}

/// Intervals without a gap between them.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    start_ns: u64,
    end_ns: u64,
    energy: Microjoules,
}

/// Shortest time whose mean counts: shorter ones vary with the steps of the counter.
const WINDOW_NS: u64 = 1_000_000_000;
const MINUTE_NS: u64 = 60_000_000_000;
/// How long a smallest power counts. Idle power rises when a model is loaded or a clock is raised.
const MINUTES: u64 = 10;

impl IdlePower {
    /// A known idle power in microwatts.
    pub fn known(microwatts: u64) -> Self {
        Self { configured: Some(microwatts), ..Self::default() }
    }

    /// Learned, unless it is configured.
    pub fn learned(configured: Option<u64>) -> Self {
        Self { configured, learns: true, ..Self::default() }
    }

    /// Not known, and not to be learned: the device serves others too.
    pub fn unknown() -> Self {
        Self::default()
    }

    /// Takes in an interval; `empty` if no request was open and no model loading in it.
    pub fn observe(&mut self, interval: Interval, empty: bool) {
        if !self.learns {
            return;
        }
        let all = self.all.add(interval);
        let empty = if empty {
            self.empty.add(interval)
        } else {
            self.empty = Window::default();
            None
        };
        if all.is_none() && empty.is_none() {
            return;
        }
        let number = interval.end.0 / MINUTE_NS;
        if self.minutes.back().is_none_or(|last| last.number < number) {
            self.minutes.push_back(Minute { number, empty: None, all: None });
        }
        if let Some(minute) = self.minutes.back_mut() {
            minute.empty = smaller(minute.empty, empty);
            minute.all = smaller(minute.all, all);
        }
        // What was learned is kept until something newer is.
        while self.minutes.front().is_some_and(|first| first.number + MINUTES <= number)
            && (self.configured.is_some()
                || self.minutes.iter().skip(1).any(|minute| minute.empty.is_some()))
        {
            self.minutes.pop_front();
        }
    }

    /// The idle power in microwatts; `None` if it is not known.
    pub fn microwatts(&self) -> Option<u64> {
        let learned = || self.minutes.iter().filter_map(|minute| minute.empty).min();
        let idle = self.configured.or_else(learned)?;
        Some(self.smallest_seen().map_or(idle, |seen| idle.min(seen)))
    }

    /// Whether the idle power is missing only because it was not learned yet.
    pub fn is_awaited(&self) -> bool {
        self.learns && self.microwatts().is_none()
    }

    /// Whether the device has drawn less than the configured idle power by more than a twentieth.
    pub fn is_too_high(&self) -> bool {
        let seen = self.smallest_seen();
        self.configured
            .zip(seen)
            .is_some_and(|(configured, seen)| seen < configured - configured / 20)
    }

    fn smallest_seen(&self) -> Option<u64> {
        self.minutes.iter().filter_map(|minute| minute.all).min()
    }
}

fn smaller(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}

impl Window {
    /// Adds an interval; the mean power once the window is long enough, which starts the next one.
    fn add(&mut self, interval: Interval) -> Option<u64> {
        if self.end_ns != interval.start.0 || self.start_ns == self.end_ns {
            *self = Self { start_ns: interval.start.0, ..Self::default() };
        }
        self.end_ns = interval.end.0;
        self.energy += interval.energy;
        let length_ns = self.end_ns - self.start_ns;
        if length_ns < WINDOW_NS {
            return None;
        }
        let power = self.energy.mean_power(length_ns);
        *self = Self::default();
        Some(power)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::MonotonicNs;

    const TICK_NS: u64 = 50_000_000;

    /// Plays ticks of (milliwatts, empty).
    fn play(idle: &mut IdlePower, from: u64, ticks: impl IntoIterator<Item = (u64, bool)>) -> u64 {
        let mut at = from;
        for (milliwatts, empty) in ticks {
            let (start, end) = (MonotonicNs(at), MonotonicNs(at + TICK_NS));
            let energy = Microjoules::of_power(milliwatts * 1000, TICK_NS);
            idle.observe(Interval { start, end, energy, whole: true }, empty);
            at += TICK_NS;
        }
        at
    }

    fn ticks(count: usize, milliwatts: u64, empty: bool) -> Vec<(u64, bool)> {
        vec![(milliwatts, empty); count]
    }

    #[test]
    fn idle_power_is_learned_from_times_without_requests_only() {
        let mut idle = IdlePower::learned(None);
        let at = play(&mut idle, 0, ticks(100, 40_000, false));
        assert!(idle.is_awaited(), "others learned it at the first load and were stuck there");
        let at = play(&mut idle, at, ticks(20, 12_000, true));
        assert_eq!(idle.microwatts(), Some(12_000_000));
        // A wave of work between short pauses is not idle time.
        play(&mut idle, at, (0..200).map(|tick| (30_000, tick % 10 < 5)));
        assert_eq!(idle.microwatts(), Some(12_000_000));
    }

    #[test]
    fn a_configured_idle_power_is_bounded_by_the_smallest_power_seen() {
        let mut idle = IdlePower::learned(Some(60_000_000));
        assert_eq!((idle.microwatts(), idle.is_too_high()), (Some(60_000_000), false));
        play(&mut idle, 0, ticks(40, 20_000, false));
        assert_eq!((idle.microwatts(), idle.is_too_high()), (Some(20_000_000), true));
    }

    #[test]
    fn idle_power_that_rises_is_learned_again_after_ten_minutes() {
        let mut idle = IdlePower::learned(None);
        let at = play(&mut idle, 0, ticks(1200, 25_000, true));
        let at = play(&mut idle, at, ticks(1200 * 8, 60_000, true));
        assert_eq!(idle.microwatts(), Some(25_000_000));
        let at = play(&mut idle, at, ticks(1200 * 4, 60_000, true));
        assert_eq!(idle.microwatts(), Some(60_000_000));
        // Busy for an hour: what is known is kept.
        play(&mut idle, at, ticks(1200 * 60, 300_000, false));
        assert_eq!(idle.microwatts(), Some(60_000_000));
    }

    proptest! {
        #[test]
        fn idle_power_is_never_above_the_smallest_second_seen(
            powers in prop::collection::vec((0u64..300_000, any::<bool>()), 1..30),
            configured in prop::option::of(0u64..300_000_000),
        ) {
            let mut idle = IdlePower::learned(configured);
            let mut at = 0;
            for (milliwatts, empty) in &powers {
                at = play(&mut idle, at, ticks(20, *milliwatts, *empty));
            }
            let least = powers.iter().map(|(milliwatts, _)| milliwatts * 1000).min();
            prop_assert!(idle.microwatts() <= least);
        }
    }
}
