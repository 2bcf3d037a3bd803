//! Quantities as types, so that one unit cannot be taken for another. Arithmetic, display and
//! clocks only.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Energy as sensors and ledgers count it: whole microjoules (1 µJ = 10⁻⁶ J), never negative.
/// Addition saturates.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Microjoules(pub u64);

impl Microjoules {
    pub const ZERO: Self = Self(0);

    /// The same amount in joules; exact up to 2⁵³ µJ (9 GJ).
    pub fn joules(self) -> Joules {
        Joules(self.0 as f64 / 1e6)
    }

    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The energy of a constant power over a time, rounded down.
    pub fn of_power(microwatts: u64, ns: u64) -> Self {
        let energy = u128::from(microwatts) * u128::from(ns) / 1_000_000_000;
        Self(u64::try_from(energy).unwrap_or(u64::MAX))
    }

    /// The part `of / whole`, rounded down; nothing if `whole` is 0.
    #[must_use]
    pub fn part(self, of: u64, whole: u64) -> Self {
        let part = (u128::from(self.0) * u128::from(of)).checked_div(u128::from(whole));
        Self(part.map_or(0, |part| u64::try_from(part).unwrap_or(u64::MAX)))
    }

    /// The mean power over a time, in microwatts; 0 for no time.
    pub fn mean_power(self, ns: u64) -> u64 {
        Self(1_000_000_000).part(self.0, ns).0
    }
}

impl Add for Microjoules {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Microjoules {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Microjoules {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Microjoules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.joules().fmt(f)
    }
}

/// Energy in joules, for estimates, receipts and display.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Joules(pub f64);

impl Add for Joules {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl AddAssign for Joules {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Sum for Joules {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self(0.0), Add::add)
    }
}

impl fmt::Display for Joules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        match value.abs() {
            magnitude if magnitude >= 1e6 => write!(f, "{:.2} MJ", value / 1e6),
            magnitude if magnitude >= 1e3 => write!(f, "{:.2} kJ", value / 1e3),
            magnitude if magnitude >= 1.0 || magnitude == 0.0 => write!(f, "{value:.2} J"),
            _ => write!(f, "{:.2} mJ", value * 1e3),
        }
    }
}

/// Power in watts.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Watts(pub f64);

impl fmt::Display for Watts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} W", self.0)
    }
}

/// Money in US dollars. Prices have a few digits per million tokens, so a float is precise enough
/// for a bill.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Dollars(pub f64);

impl Add for Dollars {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sum for Dollars {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self(0.0), Add::add)
    }
}

impl fmt::Display for Dollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${:.6}", self.0)
    }
}

/// Grams of CO2-equivalent.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Grams(pub f64);

impl Add for Grams {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl fmt::Display for Grams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0.0 || self.0 >= 1.0 {
            write!(f, "{:.2} g", self.0)
        } else {
            write!(f, "{:.3} mg", self.0 * 1e3)
        }
    }
}

/// A reading of the machine's monotonic clock in nanoseconds, comparable between processes of one
/// boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MonotonicNs(pub u64);

impl MonotonicNs {
    /// `CLOCK_MONOTONIC` now; gateway and engine processes read the same clock.
    pub fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
        Self(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
    }
}

/// Nanoseconds from `earlier` to `self`, 0 if the order is reversed.
impl Sub for MonotonicNs {
    type Output = u64;
    fn sub(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One attempt of one request at one model: the key that joins engine steps, energy and the log.
/// Unique within a gateway process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttemptId(pub u64);

/// Milliseconds since the Unix epoch; 0 if the clock stands before it.
pub fn unix_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joules_pick_a_readable_scale() {
        let shown: Vec<String> = [0.0, 0.0042, 4.3, 4300.0, 4.3e6]
            .iter()
            .map(|&value| Joules(value).to_string())
            .collect();
        assert_eq!(shown, ["0.00 J", "4.20 mJ", "4.30 J", "4.30 kJ", "4.30 MJ"]);
    }

    #[test]
    fn a_monotonic_difference_is_never_negative() {
        let (earlier, later) = (MonotonicNs(5), MonotonicNs(9));
        assert_eq!((later - earlier, earlier - later), (4, 0));
    }
}
