//! A discovered device: its coverage, the quality of its figures, and the sensor or the reason why
//! it cannot be read.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::coverage::Coverage;
use super::sensor::{Band, DeviceInfo, Sensor, SensorError};
use crate::energy::figure::{Quality, Source};
use crate::units::Watts;

/// A device that was found.
pub struct Discovered {
    pub kind: Kind,
    pub info: DeviceInfo,
    pub coverage: Coverage,
    /// Location of the sensor: a path, a URL or an index.
    pub at: String,
    /// The sensor, or why there is none.
    pub sensor: Result<Box<dyn Sensor>, SkipReason>,
}

impl fmt::Debug for Discovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovered")
            .field("name", &self.info.name)
            .field("coverage", &self.coverage)
            .field("why", &self.sensor.as_ref().err())
            .finish_non_exhaustive()
    }
}

/// Kind of sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Rapl,
    Nvml,
    Hwmon,
    Ina3221,
    Apple,
    Battery,
    Prometheus,
    Wall,
    CpuModel,
}

impl Kind {
    /// The label of the source of its figures.
    pub fn label(self) -> &'static str {
        self.source().label()
    }

    pub fn source(self) -> Source {
        match self {
            Self::Rapl => Source::Rapl,
            Self::Nvml => Source::Nvml,
            Self::Hwmon => Source::Hwmon,
            Self::Ina3221 => Source::Ina3221,
            Self::Apple => Source::Apple,
            Self::Battery => Source::Battery,
            Self::Prometheus => Source::Prometheus,
            Self::Wall => Source::Wall,
            Self::CpuModel => Source::CpuModel,
        }
    }
}

/// Why a device is not used.
#[derive(Debug, thiserror::Error)]
pub enum SkipReason {
    #[error("contains devices that are counted one by one")]
    Contains,
    #[error("is counted within {0}")]
    Within(Arc<str>),
    #[error("is part of its package, which is counted whole")]
    PartOfPackage,
    #[error("is a second view of a device that is already counted")]
    Twin,
    #[error("{0} already counts the processor")]
    Counted(&'static str),
    #[error("is an unknown kind of zone")]
    UnknownZone,
    #[error("has never counted: its counter is 0")]
    NeverCounted,
    #[error("its channel is switched off")]
    SwitchedOff,
    #[error("shows what leaves the battery, which is nothing while the laptop is plugged in")]
    Battery,
    #[error(
        "reads 0, as the second half of a card with two dies does: the first half's figure holds both"
    )]
    SecondDie,
    #[error("MIG is enabled: the driver reports energy only for the whole card, not per instance")]
    Mig,
    #[error("not selected by energy.sensors")]
    NotAsked,
    #[error("is the reference for `wattgate measure --calibrate`; the machine's parts are counted")]
    Reference,
    #[error("{0}")]
    Absent(&'static str),
    /// A card that the driver lists cannot be read.
    #[error("{0}")]
    Driver(String),
    /// There is no driver, or it lists no card.
    #[error("{0}")]
    NoDriver(String),
    /// Its counter shows what that of another device shows.
    #[error("shows the same counter as {0}, which is counted once")]
    Mirror(Arc<str>),
    #[error(transparent)]
    Unreadable(#[from] SensorError),
}

/// Permanent read permission on RAPL's counters.
const LASTING: &str = "\
To let every user read RAPL's counters permanently (a side channel on other users' computations: CVE-2020-8694):
  echo 'SUBSYSTEM==\"powercap\", ACTION==\"add\", RUN+=\"/bin/chmod a+r /sys%p/energy_uj\"' | sudo tee /etc/udev/rules.d/60-wattgate.rules
  sudo udevadm control --reload && sudo udevadm trigger --action=add --subsystem-match=powercap";

impl SkipReason {
    /// Whether the device works for this machine and its energy is missing in every sum.
    pub fn is_missing(&self, coverage: Coverage) -> bool {
        match (self, coverage) {
            (_, Coverage::Machine | Coverage::Elsewhere) => false,
            (Self::Unreadable(_) | Self::Driver(_) | Self::Mig, _) => true,
            // Desktop processors list a memory zone that they do not count.
            (Self::NeverCounted, _) => coverage != Coverage::Memory,
            _ => false,
        }
    }

    /// A remedy beyond the message, if there is one.
    pub fn advice(&self, kind: Kind) -> Option<&'static str> {
        let denied = matches!(self, Self::Unreadable(SensorError::Denied { .. }));
        (denied && kind == Kind::Rapl).then_some(LASTING)
    }
}

/// A device without known idle power.
pub fn info(name: impl Into<Arc<str>>, kind: Kind, quality: Quality, band: Band) -> DeviceInfo {
    DeviceInfo { name: name.into(), source: kind.source(), quality, band, idle: None }
}

/// The device with the configured idle power.
pub fn with_idle(info: DeviceInfo, idle: Option<Watts>) -> DeviceInfo {
    DeviceInfo { idle, ..info }
}
