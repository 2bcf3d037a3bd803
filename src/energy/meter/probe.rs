//! One sensor that the meter reads, with the device it belongs to.

use crate::energy::attribution::device::Scope;
use crate::energy::attribution::{Attribution, DeviceId};
use crate::energy::figure::Source;
use crate::energy::sensors::coverage::Coverage;
use crate::energy::sensors::sensor::{Sample, Sensor, SensorError};
use crate::units::MonotonicNs;

/// A sensor in use.
pub(super) struct Probe {
    /// `None` while its counter may be that of another sensor.
    pub(super) device: Option<DeviceId>,
    /// When the sensor was created: its energy counts from then on.
    pub(super) since: MonotonicNs,
    pub(super) scope: Scope,
    /// Of the engine process; `None` for a device.
    pub(super) pid: Option<u32>,
    pub(super) sensor: Box<dyn Sensor>,
    /// Since when its readings fail. A failure is logged once, not at every tick.
    pub(super) failing_since: Option<MonotonicNs>,
    /// Whether CPU time has stood for it since its last good reading.
    pub(super) replaced: bool,
}

/// Time after which CPU time stands for a processor that cannot be read.
const REPLACED_AFTER_NS: u64 = 1_000_000_000;

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
        let Some(id) = self.device else { return true };
        attribution.faults(id, self.sensor.resets(), self.sensor.glitches());
        match reading {
            Ok(sample) => {
                if self.failing_since.take().is_some() {
                    tracing::info!(%device, "the energy sensor can be read again");
                }
                if std::mem::take(&mut self.replaced) {
                    attribution.skip_to(id, at, sample);
                } else {
                    attribution.reading(id, at, sample);
                }
                true
            }
            // The end of a process is not a failure. A counter that has disappeared may come back.
            Err(SensorError::Gone { .. }) if self.sensor.device().source == Source::CpuModel => {
                attribution.lost(id, at);
                false
            }
            Err(error) => {
                if self.failing_since.is_none() {
                    self.failing_since = Some(at);
                    tracing::warn!(%device, %error, "an energy sensor cannot be read: its energy is unknown until it can");
                }
                attribution.read_failed(id);
                true
            }
        }
    }

    /// Whether it reads the processor, alone or with the whole machine.
    pub(super) fn covers_processor(&self) -> bool {
        matches!(self.scope, Scope::Shared(Coverage::Processor | Coverage::Machine))
    }

    /// Whether it has failed for so long that CPU time must stand for it.
    pub(super) fn is_out(&self, now: MonotonicNs) -> bool {
        self.failing_since.is_some_and(|since| now - since > REPLACED_AFTER_NS)
    }
}
