//! A device that was found, with what it covers, how good its figures would be, and why it may not be usable.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::sensor::{Band, DeviceInfo, Sensor, SensorError};
use crate::energy::figure::{Quality, Source};
use crate::units::Watts;

/// A device that might be metered.
pub struct Discovered {
    pub kind: Kind,
    pub info: DeviceInfo,
    pub coverage: Coverage,
    /// Where it is read: a path, an address, an index.
    pub at: String,
    /// Ready to be read, or why not.
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

/// What kind of sensor reads a device.
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
    /// The same word as the source of its figures.
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

/// What of a machine a device's figure covers. Machine contains all the others but those elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coverage {
    /// All of it, or all that computes.
    Machine,
    /// A CPU package with what sits in it.
    Processor,
    /// Memory beside a package.
    Memory,
    /// A card of its own.
    Accelerator,
    /// Another machine, whose engines are asked through the network.
    Elsewhere,
}

impl Coverage {
    pub fn label(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Processor => "processor",
            Self::Memory => "memory",
            Self::Accelerator => "accelerator",
            Self::Elsewhere => "elsewhere",
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
    #[error("is not a kind of zone that Wattgate knows how to add up")]
    UnknownZone,
    #[error("has never counted anything")]
    NeverCounted,
    #[error("its channel is switched off")]
    SwitchedOff,
    #[error("shows what leaves the battery, which is nothing while the laptop is plugged in")]
    Battery,
    #[error(
        "reads 0, as the second half of a card with two dies does: the first half's figure holds both"
    )]
    SecondDie,
    #[error("MIG is on: the driver gives one figure for the whole card and none for its instances")]
    Mig,
    #[error("energy.sensors asks for something else")]
    NotAsked,
    #[error("serves as the reference for `wattgate measure --calibrate`; the parts are counted")]
    Reference,
    #[error("{0}")]
    Absent(&'static str),
    #[error("{0}")]
    Driver(String),
    #[error(transparent)]
    Unreadable(#[from] SensorError),
}

/// How to let everybody read RAPL's counters for good.
const LASTING: &str = "\
To let every user read RAPL's counters from now on (who reads them can guess at what others compute: CVE-2020-8694):
  echo 'SUBSYSTEM==\"powercap\", ACTION==\"add\", RUN+=\"/bin/chmod a+r /sys%p/energy_uj\"' | sudo tee /etc/udev/rules.d/60-wattgate.rules
  sudo udevadm control --reload && sudo udevadm trigger --action=add --subsystem-match=powercap";

impl SkipReason {
    /// What an operator can do about it beyond what the reason says.
    pub fn advice(&self, kind: Kind) -> Option<&'static str> {
        let denied = matches!(self, Self::Unreadable(SensorError::Denied { .. }));
        (denied && kind == Kind::Rapl).then_some(LASTING)
    }
}

/// A device's description, before anything is known of its idle power.
pub fn info(name: impl Into<Arc<str>>, kind: Kind, quality: Quality, band: Band) -> DeviceInfo {
    DeviceInfo { name: name.into(), source: kind.source(), quality, band, idle: None }
}

/// The same with the idle power that the operator knows.
pub fn with_idle(info: DeviceInfo, idle: Option<Watts>) -> DeviceInfo {
    DeviceInfo { idle, ..info }
}
