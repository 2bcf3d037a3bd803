//! The seam to energy sensors: cumulative energy of one device, and counters that wrap or start over.
//!
//! A sensor reads; it does not attribute, does not keep time for the meter, and never turns an error into a zero.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::figure::{Quality, Source};
use crate::units::{Microjoules, Watts};

/// A source of cumulative energy for one device.
///
/// After a failed read the next good one covers the whole gap: where the hardware kept counting, that energy belongs
/// to the interval that ends with the good read, so nothing is lost and nothing is invented.
pub trait Sensor: Send {
    fn device(&self) -> &DeviceInfo;

    /// Energy since the sensor was made (counters) or since its process began (models); never decreases.
    fn read(&mut self) -> Result<Microjoules, SensorError>;

    /// How often the hardware counter started over; the energy between the last read and a reset is lost.
    fn resets(&self) -> u64 {
        0
    }
}

/// What a sensor measures and how far it can be trusted.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceInfo {
    /// Stable and unique among a meter's devices; fit for a metric label.
    pub name: Arc<str>,
    pub source: Source,
    pub quality: Quality,
    pub band: Band,
    /// Power drawn with nothing to do, if known; split off as idle before attribution.
    pub idle: Option<Watts>,
}

/// Factors from a figure to the ends of its band: `low ≤ 1 ≤ high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Band {
    pub low: f64,
    pub high: f64,
}

impl Band {
    /// A counter: the figure is what it says.
    pub const EXACT: Self = Self { low: 1.0, high: 1.0 };
}

/// Why a sensor gave no figure. Energy is then unknown, not zero.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    #[error(
        "no permission to read {}: run `chmod a+r` on it (as root, after each boot), \
         or give the wattgate binary CAP_DAC_READ_SEARCH (`setcap cap_dac_read_search+ep wattgate`)",
        .path.display()
    )]
    Denied { path: PathBuf },
    /// The device or process does not exist any more.
    #[error("{} is gone", .path.display())]
    Gone { path: PathBuf },
    #[error("cannot read {}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} holds something other than a count", .path.display())]
    Malformed { path: PathBuf },
}

impl SensorError {
    /// Sorts an I/O error by what the operator can do about it.
    pub fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied { path },
            io::ErrorKind::NotFound => Self::Gone { path },
            // A process that ends while its file is open answers ESRCH.
            _ if source.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                Self::Gone { path }
            }
            _ => Self::Io { path, source },
        }
    }

    /// A short word for a metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "denied",
            Self::Gone { .. } => "gone",
            Self::Io { .. } => "io",
            Self::Malformed { .. } => "malformed",
        }
    }
}

/// What a decrease of a raw counter means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// It counts to this value and goes on from 0 (RAPL's `max_energy_range_uj`).
    WrapsAt(Microjoules),
    /// It is wide enough never to wrap: a decrease is a driver reload.
    Never,
}

/// Turns a raw hardware counter into a cumulative one.
#[derive(Debug)]
pub struct Counter {
    overflow: Overflow,
    last_raw: u64,
    total: Microjoules,
    resets: u64,
}

/// More than this from one domain between two reads is not a wrap but a counter that started over, as after a
/// suspend: no package comes within a factor of 50 of it.
const IMPLAUSIBLE_WATTS: u128 = 100_000;

impl Counter {
    /// Starts at 0 with the raw counter at `raw`.
    pub fn starting_at(raw: u64, overflow: Overflow) -> Self {
        Self { overflow, last_raw: raw, total: Microjoules::ZERO, resets: 0 }
    }

    /// Takes a good reading, `elapsed_ns` after the previous good one; failed reads in between are simply not passed.
    /// After a reset, what the counter has gained since it restarted is counted.
    pub fn advance(&mut self, raw: u64, elapsed_ns: u64) -> Microjoules {
        let gained = raw.checked_sub(self.last_raw).unwrap_or_else(|| {
            self.wrapped(raw, elapsed_ns).unwrap_or_else(|| {
                self.resets += 1;
                raw
            })
        });
        self.last_raw = raw;
        self.total += Microjoules(gained);
        self.total
    }

    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// Gain over one wrap: up to the range, then from 0. Several wraps in one gap cannot be told apart from one.
    fn wrapped(&self, raw: u64, elapsed_ns: u64) -> Option<u64> {
        let Overflow::WrapsAt(Microjoules(range)) = self.overflow else { return None };
        let gained = range.checked_sub(self.last_raw)?.checked_add(raw)?;
        // 1 W is 1 µJ each 1,000 ns.
        let plausible = u128::from(elapsed_ns) * IMPLAUSIBLE_WATTS / 1000;
        (u128::from(gained) <= plausible).then_some(gained)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn a_wrapping_counter_goes_on_past_its_range() {
        let mut counter = Counter::starting_at(990, Overflow::WrapsAt(Microjoules(1000)));
        assert_eq!(counter.advance(5, SECOND_NS), Microjoules(15));
        assert_eq!((counter.advance(25, SECOND_NS), counter.resets()), (Microjoules(35), 0));
    }

    #[test]
    fn a_decrease_of_a_counter_that_never_wraps_is_a_reset_and_not_an_astronomic_gain() {
        let mut counter = Counter::starting_at(5_000_000, Overflow::Never);
        assert_eq!(counter.advance(6_000_000, SECOND_NS), Microjoules(1_000_000));
        assert_eq!(counter.advance(300, SECOND_NS), Microjoules(1_000_300));
        assert_eq!(counter.resets(), 1);
    }

    #[test]
    fn a_wrap_that_would_need_impossible_power_is_a_reset() {
        let range = Overflow::WrapsAt(Microjoules(262_143_328_850));
        let mut counter = Counter::starting_at(200_000_000_000, range);
        assert_eq!(counter.advance(40, SECOND_NS / 20), Microjoules(40));
        assert_eq!(counter.resets(), 1);
    }

    #[test]
    fn a_read_error_leaves_the_counter_where_it_was() {
        // Nothing is passed for a failed read, so the next good one is a plain difference and not a wrap from zero.
        let mut counter =
            Counter::starting_at(700_000, Overflow::WrapsAt(Microjoules(262_143_328_850)));
        assert_eq!(counter.advance(900_000, 2 * SECOND_NS), Microjoules(200_000));
        assert_eq!(counter.resets(), 0);
    }

    #[test]
    fn errors_are_sorted_by_what_can_be_done() {
        let path = Path::new("/sys/x/energy_uj");
        let denied = SensorError::from_io(path, io::ErrorKind::PermissionDenied.into());
        assert!(denied.to_string().contains("CAP_DAC_READ_SEARCH"), "{denied}");
        assert_eq!(SensorError::from_io(path, io::ErrorKind::NotFound.into()).label(), "gone");
        assert_eq!(SensorError::from_io(path, io::Error::from_raw_os_error(3)).label(), "gone");
        assert_eq!(SensorError::from_io(path, io::ErrorKind::TimedOut.into()).label(), "io");
    }

    proptest! {
        #[test]
        fn wraps_lose_and_invent_nothing(
            start in 0u64..1000, gains in proptest::collection::vec(0u64..1000, 0..50),
        ) {
            let range = 1000;
            let mut counter = Counter::starting_at(start, Overflow::WrapsAt(Microjoules(range)));
            let mut truth = start;
            for gain in &gains {
                truth += gain;
                counter.advance(truth % range, SECOND_NS);
            }
            prop_assert_eq!(counter.total, Microjoules(truth - start));
            prop_assert_eq!(counter.resets(), 0);
        }
    }
}
