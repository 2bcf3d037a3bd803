//! The sensor interface: cumulative energy of one device.
//!
//! A sensor reads; it neither attributes energy nor schedules its readings, and never turns an
//! error into a zero.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

    /// Resets and jumps of the hardware counter so far; energy between the last read and a reset is
    /// lost.
    fn resets(&self) -> u64 {
        0
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

impl Band {
    /// The band of a counter: the figure itself.
    pub const EXACT: Self = Self { low: 1.0, high: 1.0 };
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
