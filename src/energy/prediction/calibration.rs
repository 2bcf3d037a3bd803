//! Calibration of a sensor against a wall meter: its joules times a fitted gain.
//!
//! `crate::measure::calibrate` makes the fit. Its offset, the machine's idle power, is attributed
//! to no process and kept for reports.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::energy::figure::{Quality, Source};
use crate::energy::polling::poller::Poller;
use crate::energy::sensors::sensor::{Band, DeviceInfo, Sample, Sensor, SensorError};
use crate::units::{Microjoules, Watts};

/// `wall watts = offset + gain · sensor watts`, by least squares over steps of load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// The calibrated kind of sensor; others are unchanged.
    pub source: Source,
    pub gain: f64,
    /// Reading of the wall meter at a sensor reading of 0 W.
    pub offset: Watts,
    /// Share of the variance explained, 0.9 to 1.
    pub r_squared: f64,
    /// Number of load steps in the fit.
    pub steps: u32,
    /// Actual over fitted wall watts above the offset, in leave-one-out fits: the lowest and the
    /// highest.
    pub low: f64,
    pub high: f64,
    /// Kind of the wall meter or file, never an address.
    pub meter: String,
    /// Date of the calibration, UTC.
    pub measured: String,
}

impl Calibration {
    pub fn is_usable(&self) -> bool {
        (1e-3..=1e3).contains(&self.gain)
            && self.offset.0.is_finite()
            && (0.9..=1.0).contains(&self.r_squared)
            && (0.0..=1.0).contains(&self.low)
            && (1.0..=1e3).contains(&self.high)
    }

    /// The sensor with corrected readings if it is of the calibrated kind, else the sensor itself.
    pub fn apply(&self, sensor: Box<dyn Sensor>) -> Box<dyn Sensor> {
        let info = sensor.device();
        if info.source != self.source || info.quality == Quality::Calibrated {
            return sensor;
        }
        let info = DeviceInfo {
            quality: Quality::Calibrated,
            band: Band { low: self.low, high: self.high },
            idle: info.idle.map(|idle| Watts(idle.0 * self.gain)),
            ..info.clone()
        };
        Box::new(Calibrated { info, gain_millionths: millionths(self.gain), inner: sensor })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "0.001 to 1000, by `is_usable`"
)]
fn millionths(gain: f64) -> u128 {
    (gain * 1e6).round() as u128
}

struct Calibrated {
    info: DeviceInfo,
    gain_millionths: u128,
    inner: Box<dyn Sensor>,
}

impl Sensor for Calibrated {
    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    fn read(&mut self) -> Result<Sample, SensorError> {
        let raw = self.inner.read()?;
        let corrected = u128::from(raw.total.0) * self.gain_millionths / 1_000_000;
        let total = Microjoules(u64::try_from(corrected).unwrap_or(u64::MAX));
        Ok(Sample { total, ..raw })
    }

    fn resets(&self) -> u64 {
        self.inner.resets()
    }

    fn glitches(&self) -> u64 {
        self.inner.glitches()
    }

    fn raw_count(&self) -> Option<u64> {
        self.inner.raw_count()
    }

    fn poll_interval(&self) -> Option<Duration> {
        self.inner.poll_interval()
    }

    fn holders(&self) -> Option<Vec<u32>> {
        self.inner.holders()
    }

    fn take_poller(&mut self) -> Option<Poller> {
        self.inner.take_poller()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::MonotonicNs;

    struct Fixed(DeviceInfo);

    impl Sensor for Fixed {
        fn device(&self) -> &DeviceInfo {
            &self.0
        }

        fn read(&mut self) -> Result<Sample, SensorError> {
            Ok(Sample { at: MonotonicNs(7), total: Microjoules(1_000_001), whole: true })
        }
    }

    fn sensor(source: Source) -> Box<dyn Sensor> {
        let band = Band { low: 0.3, high: 2.4 };
        let name = "engine:m".into();
        Box::new(Fixed(DeviceInfo { name, source, quality: Quality::Estimated, band, idle: None }))
    }

    #[test]
    fn the_calibrated_kind_is_corrected_and_says_so_and_others_are_left_alone() {
        let calibration = Calibration {
            source: Source::CpuModel,
            gain: 2.5,
            offset: Watts(31.0),
            r_squared: 0.99,
            steps: 8,
            low: 0.95,
            high: 1.06,
            meter: "csv".to_owned(),
            measured: "2026-11-23".to_owned(),
        };
        let mut corrected = calibration.apply(sensor(Source::CpuModel));
        assert_eq!(corrected.read().unwrap().total, Microjoules(2_500_002));
        let info = corrected.device();
        assert_eq!(
            (info.quality, info.band),
            (Quality::Calibrated, Band { low: 0.95, high: 1.06 })
        );
        let mut other = calibration.apply(sensor(Source::Rapl));
        assert_eq!(
            (other.read().unwrap().total, other.device().quality),
            (Microjoules(1_000_001), Quality::Estimated)
        );
    }
}
