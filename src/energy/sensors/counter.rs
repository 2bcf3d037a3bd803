//! Cumulative energy from a raw hardware counter; distinguishes wraps, restarts, glitches, jumps
//! and standstill. Pure: readings and times are arguments.

use std::sync::Arc;
use std::time::Duration;

use super::plausibility::{Plausibility, Verdict};
use super::sensor::{Sample, SensorError};
use crate::units::{Microjoules, MonotonicNs};

/// What a decrease of a raw counter means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The counter wraps to 0 after this value (RAPL's `max_energy_range_uj`).
    WrapsAt(Microjoules),
    /// The counter is wide enough never to wrap: a decrease is a driver reload, or a glitch.
    Never,
}

/// A raw counter in microjoules and its gain since the first reading.
///
/// A reading that the device cannot have reached is quarantined: the counter stays at its last
/// sample until later readings tell what it was. If they return to the line from before, it was a
/// glitch, and the next gain covers its time exactly. If they go on from the new value, the counter
/// has jumped: its gain is not booked, and the energy of that time is unknown.
#[derive(Debug)]
pub struct Counter {
    device: Arc<str>,
    overflow: Overflow,
    plausibility: Plausibility,
    /// The raw value of `last`.
    raw: u64,
    /// The latest sample: when the raw value last changed plausibly.
    last: Sample,
    last_gain: u64,
    /// The raw value read last, and when it changed.
    shown: u64,
    shown_at: MonotonicNs,
    suspect: Option<Suspect>,
    standstill_ns: u64,
    stands_still: bool,
    resets: u64,
    glitches: u64,
}

/// A raw value in quarantine.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    since: MonotonicNs,
    kind: SuspectKind,
    raw: u64,
    /// Energy counted from the first suspicious value on.
    grown: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SuspectKind {
    /// A gain far above the device's usual power: in microwatts.
    Unusual(u64),
    /// A gain that the device cannot make: in microwatts.
    Impossible(u64),
    /// A step back.
    Decrease,
}

/// Result of comparing two raw values.
enum Step {
    Gain(u64),
    Restart(u64),
    Suspect(SuspectKind),
}

/// Nanoseconds without a change after which a counter is stuck; even those of cards change every
/// 100 ms.
const STANDSTILL_NS: u64 = 5_000_000_000;

/// How long a quarantine lasts. Reported glitches last up to a second (powerstat#16).
const QUARANTINE_NS: u64 = 2_000_000_000;

impl Counter {
    /// Starts at 0 with the raw counter at `raw`.
    pub fn starting_at(raw: u64, at: MonotonicNs, device: Arc<str>, overflow: Overflow) -> Self {
        Self {
            device,
            overflow,
            plausibility: Plausibility::default(),
            raw,
            last: Sample { at, total: Microjoules::ZERO, whole: true },
            last_gain: 0,
            shown: raw,
            shown_at: at,
            suspect: None,
            standstill_ns: STANDSTILL_NS,
            stands_still: false,
            resets: 0,
            glitches: 0,
        }
    }

    /// Sets the time without a change after which the counter is stuck, for one that changes more
    /// rarely than a device's.
    #[must_use]
    pub fn standing_still_after(mut self, standstill: Duration) -> Self {
        self.standstill_ns = u64::try_from(standstill.as_nanos()).unwrap_or(u64::MAX);
        self
    }

    /// Sets the highest power that the device states, in microwatts.
    #[must_use]
    pub fn rated(mut self, microwatts: Option<u64>) -> Self {
        self.plausibility = Plausibility::rated(microwatts);
        self
    }

    /// Takes in a good reading; failed ones must not be passed.
    pub fn advance(&mut self, raw: u64, now: MonotonicNs) -> Result<Sample, SensorError> {
        if raw == self.shown {
            let still_ns = now - self.shown_at;
            if still_ns < self.standstill_ns {
                if let Some(suspect) = self.suspect.take() {
                    self.wait_or_conclude(suspect, now);
                }
                return Ok(self.last);
            }
            self.stands_still = true;
            let seconds = still_ns / 1_000_000_000;
            return Err(SensorError::Frozen { device: Arc::clone(&self.device), seconds });
        }
        let step_ns = now - self.shown_at;
        (self.shown, self.shown_at) = (raw, now);
        match self.suspect.take() {
            None => match self.step(raw, now) {
                Step::Gain(gained) => self.accept(raw, now, gained),
                Step::Restart(gained) => self.restart(raw, now, gained),
                Step::Suspect(kind) => {
                    self.glitches += 1;
                    self.suspect = Some(Suspect { since: now, kind, raw, grown: 0 });
                }
            },
            Some(suspect) => self.resolve(suspect, raw, now, step_ns),
        }
        Ok(self.last)
    }

    /// Restarts and lasting jumps so far; energy around them is unknown.
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// Quarantined readings so far.
    pub fn glitches(&self) -> u64 {
        self.glitches
    }

    /// The raw value read last.
    pub fn shown(&self) -> u64 {
        self.shown
    }

    /// Compares a raw value with the last plausible one.
    fn step(&self, raw: u64, now: MonotonicNs) -> Step {
        let elapsed_ns = now - self.last.at;
        let judge = |gained| self.plausibility.judge(Microjoules(gained), elapsed_ns);
        if let Some(gained) = raw.checked_sub(self.raw) {
            let power = Microjoules(gained).mean_power(elapsed_ns);
            return match judge(gained) {
                Verdict::Usual => Step::Gain(gained),
                Verdict::Unusual => Step::Suspect(SuspectKind::Unusual(power)),
                Verdict::Impossible => Step::Suspect(SuspectKind::Impossible(power)),
            };
        }
        // Up to the range, then from 0. Several wraps in one gap look like one.
        if let Overflow::WrapsAt(range) = self.overflow
            && let Some(gained) =
                range.0.checked_sub(self.raw).and_then(|rest| rest.checked_add(raw))
            && judge(gained) != Verdict::Impossible
            && (self.plausibility.is_known() || gained <= soonest_wrap(range, elapsed_ns))
        {
            return Step::Gain(gained);
        }
        let starts_over = raw < self.raw / 2 && self.raw - raw > self.last_gain;
        match self.plausibility.could_start_over(Microjoules(raw), elapsed_ns) {
            Some(true) if starts_over => Step::Restart(raw),
            // Its energy since the restart cannot be told from garbage.
            None if starts_over => Step::Restart(0),
            _ => Step::Suspect(SuspectKind::Decrease),
        }
    }

    /// Decides about a quarantine with the next change of the raw value.
    fn resolve(&mut self, mut suspect: Suspect, raw: u64, now: MonotonicNs, step_ns: u64) {
        let back_on_line = match suspect.kind {
            SuspectKind::Decrease => raw >= self.raw,
            _ => raw >= self.raw && raw < suspect.raw,
        };
        match self.step(raw, now) {
            Step::Gain(gained) if back_on_line => return self.accept(raw, now, gained),
            Step::Restart(gained) => return self.restart(raw, now, gained),
            _ => {}
        }
        match raw.checked_sub(suspect.raw) {
            Some(grown) => {
                let power = Microjoules(grown).mean_power(step_ns);
                let since = Microjoules(suspect.grown.saturating_add(grown));
                let since = since.mean_power(now - suspect.since);
                if let SuspectKind::Unusual(before) | SuspectKind::Impossible(before) = suspect.kind
                    && since >= before / 4
                    && power <= before.saturating_mul(4)
                    && !self.plausibility.exceeds_rating(power.max(before))
                {
                    // A load goes on at its power; after a glitch the counter goes on as before.
                    return self.accept(raw, now, raw - self.raw);
                }
                let judged = self.plausibility.judge(Microjoules(grown), step_ns);
                suspect.grown += if judged == Verdict::Impossible { 0 } else { grown };
            }
            None if raw < self.raw => suspect.kind = SuspectKind::Decrease,
            None => {}
        }
        suspect.raw = raw;
        self.wait_or_conclude(suspect, now);
    }

    /// Ends a quarantine that has lasted long enough.
    fn wait_or_conclude(&mut self, suspect: Suspect, now: MonotonicNs) {
        if now - suspect.since < QUARANTINE_NS {
            self.suspect = Some(suspect);
            return;
        }
        let gained = suspect.raw.saturating_sub(self.raw);
        let judged = self.plausibility.judge(Microjoules(gained), now - self.last.at);
        match suspect.kind {
            // A short burst: the device can do it, and the counter never went back.
            SuspectKind::Unusual(_) if judged != Verdict::Impossible => {
                self.accept(suspect.raw, now, gained);
            }
            _ => self.restart(suspect.raw, now, suspect.grown),
        }
    }

    fn accept(&mut self, raw: u64, now: MonotonicNs, gained: u64) {
        self.plausibility.accept(Microjoules(gained), now - self.last.at);
        // The gain while the counter was stuck is unknown.
        let whole = !std::mem::take(&mut self.stands_still);
        self.book(raw, now, gained, whole);
    }

    /// Goes on from `raw`, of whose energy since the last sample only `gained` is known.
    fn restart(&mut self, raw: u64, now: MonotonicNs, gained: u64) {
        self.resets += 1;
        self.stands_still = false;
        self.book(raw, now, gained, false);
    }

    fn book(&mut self, raw: u64, now: MonotonicNs, gained: u64, whole: bool) {
        self.raw = raw;
        self.last_gain = gained;
        self.last = Sample { at: now, total: self.last.total + Microjoules(gained), whole };
    }
}

/// What a counter of an unknown device may gain at most. Ranges are made so that even at high power
/// about a minute passes between two wraps (Intel, Software Developer's Manual, volume 3, on
/// `MSR_PKG_ENERGY_STATUS`); a second more, because the counter may move in steps.
fn soonest_wrap(range: Microjoules, elapsed_ns: u64) -> u64 {
    Microjoules::of_power(range.0 / 60, elapsed_ns.saturating_add(1_000_000_000)).0
}

#[cfg(test)]
mod tests;
