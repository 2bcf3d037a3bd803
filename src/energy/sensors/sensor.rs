//! The sensor interface: cumulative energy of one device.
//!
//! A sensor reads; it neither attributes energy nor schedules its readings, and never turns an
//! error into a zero.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::energy::figure::{Quality, Source};
use crate::energy::polling::poller::Poller;
use crate::units::{Microjoules, MonotonicNs, Watts};

/// A source of cumulative energy for one device.
///
/// After a failed read the next good one covers the whole gap: energy counted by the hardware
/// meanwhile belongs to the interval that ends with the good read.
pub trait Sensor: Send {
    fn device(&self) -> &DeviceInfo;

    /// The newest sample. Must not block: slow sources are polled by a task and only looked up
    /// here.
    fn read(&mut self) -> Result<Sample, SensorError>;

    /// Takes the poll task that feeds the sensor. Until that runs, a polled sensor has no reading;
    /// others have no task.
    fn take_poller(&mut self) -> Option<Poller> {
        None
    }

    /// Restarts and lasting jumps of the hardware counter so far; energy around them is unknown.
    fn resets(&self) -> u64 {
        0
    }

    /// Readings so far that the device cannot have reached, and that were left out.
    fn glitches(&self) -> u64 {
        0
    }

    /// The raw value of the hardware counter at the last read, by which two sensors that show the
    /// same one are detected; `None` for other sensors.
    fn raw_count(&self) -> Option<u64> {
        None
    }

    /// Time between two of its readings, for a sensor that is polled over the network.
    fn poll_interval(&self) -> Option<Duration> {
        None
    }

    /// Processes that hold memory on the device; `None` if the sensor cannot tell.
    fn holders(&self) -> Option<Vec<u32>> {
        None
    }
}

/// A reading of a sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Time of the reading. Equal to that of the sample before while the counter has not changed:
    /// energy of a slow counter belongs to the whole time since its last change, not to the tick of
    /// the change.
    pub at: MonotonicNs,
    /// Energy since the sensor was created (counters) or since its process started (models); never
    /// decreases.
    pub total: Microjoules,
    /// Whether `total` contains all energy since the sample before. If not, energy of that time is
    /// unknown.
    pub whole: bool,
}

/// A device and the quality of its sensor's figures.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceInfo {
    /// Stable and unique among a meter's devices; fit for a metric label.
    pub name: Arc<str>,
    pub source: Source,
    pub quality: Quality,
    pub band: Band,
    /// Idle power, if known; booked as idle energy before attribution.
    pub idle: Option<Watts>,
}

/// Factors from a figure to the ends of its band: `low ≤ 1 ≤ high`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Band {
    pub low: f64,
    pub high: f64,
}

/// The bands of sensors. No counter is exact: chips model part of their power, and shunts have
/// tolerances.
impl Band {
    /// A figure without an error, for tests and sums.
    pub const EXACT: Self = Self { low: 1.0, high: 1.0 };
    /// Processor counters. Software power readings are off by 10 to 15 % (Yang et al., "Part-time
    /// Power Measurements", arXiv 2312.02741, as cited by arXiv 2511.07885); AMD's are a model of
    /// activity and not a measurement (Schöne et al., arXiv 2108.00808).
    pub const PROCESSOR: Self = Self::within(0.15);
    /// Memory counters: within 20 % of a wattmeter at the modules (Desrochers et al., "A Validation
    /// of DRAM RAPL Power Measurements", MEMSYS 2016).
    pub const MEMORY: Self = Self::within(0.2);
    /// Energy counters of cards: NVIDIA states ±5 % for power; 10 % covers what their sampling
    /// misses (arXiv 2312.02741).
    pub const CARD: Self = Self::within(0.1);
    /// Power that the device averages itself. An assumption: as cards.
    pub const AVERAGED: Self = Self::within(0.1);
    /// Power read at instants: what happens between two is not seen.
    pub const SAMPLED: Self = Self::within(0.15);
    /// Plugs state 1 to 3 %; the rest is for power between two readings.
    pub const WALL: Self = Self::within(0.05);

    const fn within(error: f64) -> Self {
        Self { low: 1.0 - error, high: 1.0 + error }
    }
}

/// Why a sensor has no reading. Energy is then unknown, not zero.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    #[error(
        "no permission to read {0}: `sudo chmod a+r {0}` lasts until the next boot; or give the wattgate binary \
         CAP_DAC_READ_SEARCH (`sudo setcap cap_dac_read_search+ep wattgate`)",
        .path.display()
    )]
    Denied { path: PathBuf },
    /// The device or process no longer exists.
    #[error("{} no longer exists", .path.display())]
    Gone { path: PathBuf },
    #[error("cannot read {}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} holds something other than a count", .path.display())]
    Malformed { path: PathBuf },
    /// The counter has not changed for so long that it cannot be counting.
    #[error("{device}: counter stuck for {seconds} s")]
    Frozen { device: Arc<str>, seconds: u64 },
    /// The device is suspended by its driver: it draws next to nothing, and reading it would wake
    /// it.
    #[error("{device}: asleep")]
    Asleep { device: Arc<str> },
    /// The gauge of an active device reads 0 W.
    #[error("{device}: power reads 0 W on an active device")]
    NoPower { device: Arc<str> },
    /// No poll has completed yet.
    #[error("{device}: no reading yet")]
    Waiting { device: Arc<str> },
    /// A driver or a remote server returned no usable figure.
    #[error("{device}: {why}")]
    Refused { device: Arc<str>, why: String },
    /// The newest figure from a remote server is too old.
    #[error("{device}: the newest reading is {seconds} s old")]
    Stale { device: Arc<str>, seconds: u64 },
}

impl SensorError {
    /// Classifies an I/O error by its remedy.
    pub fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied { path },
            io::ErrorKind::NotFound => Self::Gone { path },
            // Reading the file of a process that has ended meanwhile fails with ESRCH.
            _ if source.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                Self::Gone { path }
            }
            _ => Self::Io { path, source },
        }
    }

    /// The kind of error as a metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "denied",
            Self::Gone { .. } => "gone",
            Self::Io { .. } => "io",
            Self::Malformed { .. } => "malformed",
            Self::Frozen { .. } => "frozen",
            Self::Asleep { .. } => "asleep",
            Self::NoPower { .. } => "no_power",
            Self::Waiting { .. } => "waiting",
            Self::Refused { .. } => "refused",
            Self::Stale { .. } => "stale",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted_by_what_can_be_done() {
        let path = Path::new("/sys/x/energy_uj");
        let denied = SensorError::from_io(path, io::ErrorKind::PermissionDenied.into());
        assert!(denied.to_string().contains("CAP_DAC_READ_SEARCH"), "{denied}");
        assert_eq!(SensorError::from_io(path, io::ErrorKind::NotFound.into()).label(), "gone");
        assert_eq!(SensorError::from_io(path, io::Error::from_raw_os_error(3)).label(), "gone");
        assert_eq!(SensorError::from_io(path, io::ErrorKind::TimedOut.into()).label(), "io");
    }
}
