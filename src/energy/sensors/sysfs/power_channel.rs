//! Sensor of one sysfs file with the power of a device: hwmon's `powerN_average`, `powerN_input`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file;
use crate::energy::sensors::gauge::{LONGEST_GAP, PowerGauge};
use crate::energy::sensors::sensor::{DeviceInfo, Sample, Sensor, SensorError};
use crate::units::MonotonicNs;

/// A power file and its integral.
#[derive(Debug)]
pub struct PowerChannel {
    info: DeviceInfo,
    path: PathBuf,
    /// Where the driver says whether it has suspended the device; `None` if it does not.
    status: Option<PathBuf>,
    gauge: PowerGauge,
}

impl PowerChannel {
    /// `rated`: the highest power that the device states, in microwatts.
    pub fn new(info: DeviceInfo, path: PathBuf, rated: Option<u64>) -> Self {
        let gauge = PowerGauge::new(Arc::clone(&info.name), rated, LONGEST_GAP);
        let status = status_file(&path);
        Self { info, path, status: Some(status).filter(|file| file.exists()), gauge }
    }
}

/// The file in which the driver says whether it has suspended the device of a channel.
fn status_file(channel: &Path) -> PathBuf {
    channel.with_file_name("device").join("power/runtime_status")
}

/// Whether the driver has suspended the device of a channel.
pub fn is_suspended(channel: &Path) -> bool {
    file::word(&status_file(channel)).is_some_and(|word| word == "suspended")
}

impl Sensor for PowerChannel {
    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    fn read(&mut self) -> Result<Sample, SensorError> {
        // Reading the power of a suspended card would wake it.
        if self.status.as_deref().and_then(file::word).is_some_and(|word| word == "suspended") {
            return Err(SensorError::Asleep { device: Arc::clone(&self.info.name) });
        }
        self.gauge.add(file::count(&self.path)?, MonotonicNs::now())
    }
}
