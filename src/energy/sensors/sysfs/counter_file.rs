//! Sensor of one sysfs file with an increasing counter: RAPL zones and hwmon energy channels.

use std::path::PathBuf;

use super::file;
use crate::energy::sensors::counter::Counter;
use crate::energy::sensors::sensor::{DeviceInfo, Sample, Sensor, SensorError};
use crate::units::MonotonicNs;

/// A counter file and its cumulative energy.
#[derive(Debug)]
pub struct CounterFile {
    pub info: DeviceInfo,
    pub path: PathBuf,
    pub counter: Counter,
}

impl Sensor for CounterFile {
    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    fn read(&mut self) -> Result<Sample, SensorError> {
        let raw = file::count(&self.path)?;
        self.counter.advance(raw, MonotonicNs::now())
    }

    fn resets(&self) -> u64 {
        self.counter.resets()
    }

    fn glitches(&self) -> u64 {
        self.counter.glitches()
    }

    fn raw_count(&self) -> Option<u64> {
        Some(self.counter.shown())
    }
}
