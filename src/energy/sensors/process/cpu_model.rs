//! The CPU model: energy from CPU time, for machines without an energy counter (virtual machines
//! above all).
//!
//! Joules = CPU seconds × watts of one busy core: an estimate, and labelled so. Frequency, memory
//! and the rest of the host are not modelled; the wide band covers them.

use std::sync::Arc;

use crate::energy::figure::{Quality, Source};
use crate::energy::sensors::sensor::{Band, DeviceInfo};
use crate::units::Watts;

/// Power of one busy core above its idle power, with its band.
///
/// The default, 3.3 W, is the marginal power of a logical x86 CPU in the Cloud Carbon Footprint
/// coefficients (about 0.7 W idle to 4.0 W at full load for Skylake and Cascade Lake). The band of
/// 1.1 to 8 W spans their range from EPYC to Haswell, with a margin for effects that CPU time does
/// not show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuModel {
    pub watts_per_busy_core: Watts,
    pub low: Watts,
    pub high: Watts,
}

impl CpuModel {
    pub const DEFAULT: Self =
        Self { watts_per_busy_core: Watts(3.3), low: Watts(1.1), high: Watts(8.0) };

    pub fn band(self) -> Band {
        let middle = self.watts_per_busy_core.0;
        Band { low: self.low.0 / middle, high: self.high.0 / middle }
    }

    /// The device of a process metered by the model.
    pub fn device(self, name: Arc<str>) -> DeviceInfo {
        DeviceInfo {
            name,
            source: Source::CpuModel,
            quality: Quality::Estimated,
            band: self.band(),
            // The model covers only power above idle.
            idle: None,
        }
    }

    /// Microjoules per CPU second.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "validated to be positive and far below 2⁶³; a float cast saturates"
    )]
    pub fn microjoules_per_cpu_second(self) -> u64 {
        (self.watts_per_busy_core.0 * 1e6).round() as u64
    }
}
