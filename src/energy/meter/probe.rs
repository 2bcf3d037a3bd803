//! One sensor that the meter reads, with the device it belongs to.

use crate::energy::attribution::device::Scope;
use crate::energy::attribution::{Attribution, DeviceId};
use crate::energy::figure::Source;
use crate::energy::sensors::sensor::{Sample, Sensor, SensorError};
use crate::units::MonotonicNs;

/// A sensor in use.
pub(super) struct Probe {
    pub(super) device: DeviceId,
    pub(super) scope: Scope,
    /// Of the engine process; `None` for a device.
    pub(super) pid: Option<u32>,
    pub(super) sensor: Box<dyn Sensor>,
    /// Whether the last reading failed: a failure is logged once, not at every tick.
    pub(super) failing: bool,
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe").field("device", self.sensor.device()).finish_non_exhaustive()
    }
}

impl Probe {
    /// Books a reading; false once the device has ended.
    pub(super) fn book(
        &mut self,
        attribution: &mut Attribution,
        at: MonotonicNs,
        reading: Result<Sample, SensorError>,
    ) -> bool {
        let device = &self.sensor.device().name;
        match reading {
            Ok(sample) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!(%device, "the energy sensor can be read again");
                }
                attribution.reading(self.device, at, sample, self.sensor.resets());
                true
            }
            // The end of a process is not a failure. A counter that has disappeared may come back.
            Err(SensorError::Gone { .. }) if self.sensor.device().source == Source::CpuModel => {
                attribution.lost(self.device, at);
                false
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%device, %error, "an energy sensor cannot be read: its energy is unknown until it can");
                }
                attribution.read_failed(self.device);
                true
            }
        }
    }
}
