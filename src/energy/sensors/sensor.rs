//! The seam to energy sensors: cumulative energy of one device.
//!
//! A sensor reads; it does not attribute, does not keep time for the meter, and never turns an error into a zero.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::energy::figure::{Quality, Source};
use crate::units::{Microjoules, MonotonicNs, Watts};

/// A source of cumulative energy for one device.
///
/// After a failed read the next good one covers the whole gap: where the hardware kept counting, that energy belongs
/// to the interval that ends with the good read, so nothing is lost and nothing is invented.
pub trait Sensor: Send {
    fn device(&self) -> &DeviceInfo;

    /// The newest sample. Answers at once: what is slow is read elsewhere and only looked up here.
    fn read(&mut self) -> Result<Sample, SensorError>;

    /// How often the hardware counter started over or jumped; the energy between the last read and that is lost.
    fn resets(&self) -> u64 {
        0
    }
}

/// What a sensor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When this was the truth. The same as that of the sample before while there is nothing new: a slow counter's
    /// energy then belongs to the whole time since it last moved, not to the tick in which it moved.
    pub at: MonotonicNs,
    /// Energy since the sensor was made (counters) or since its process began (models); never decreases.
    pub total: Microjoules,
    /// Whether all energy since the sample before is in `total`. If not, what ran then has used more than is known.
    pub whole: bool,
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
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
        "no permission to read {0}: `sudo chmod a+r {0}` lasts until the next boot; or give the wattgate binary \
         CAP_DAC_READ_SEARCH (`sudo setcap cap_dac_read_search+ep wattgate`)",
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
    /// The count has not moved for so long that nothing can be counting.
    #[error("{device} has not moved for {seconds} s, and nothing that runs draws no power")]
    Frozen { device: Arc<str>, seconds: u64 },
    /// A gauge of something that runs shows no power at all.
    #[error("{device} shows 0 W, and nothing that runs draws no power")]
    NoPower { device: Arc<str> },
    /// Another machine was asked and has not answered yet.
    #[error("{device} has not answered yet")]
    Waiting { device: Arc<str> },
    /// A driver or another machine gave no figure.
    #[error("{device}: {why}")]
    Refused { device: Arc<str>, why: String },
    /// The newest figure from another machine is too old to stand for now.
    #[error("{device}: the newest figure is {seconds} s old")]
    Stale { device: Arc<str>, seconds: u64 },
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

    /// A short word for its kind.
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
