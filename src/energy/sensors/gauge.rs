//! A power gauge: its readings checked and integrated. Pure.
//!
//! A gauge that reads 0 W is broken or suspended: energy of that time is unknown, never 0 J.

use std::sync::Arc;
use std::time::Duration;

use super::plausibility::{Plausibility, Verdict};
use super::power_integral::PowerIntegral;
use super::sensor::{Sample, SensorError};
use crate::units::MonotonicNs;

/// Energy between power readings further apart than this is unknown.
pub const LONGEST_GAP: Duration = Duration::from_millis(2500);

/// A reading beyond the device's history is believed once it has lasted for so many readings.
const BELIEVED_AFTER: u32 = 3;

/// A device that reports only its power.
#[derive(Debug)]
pub struct PowerGauge {
    device: Arc<str>,
    plausibility: Plausibility,
    /// Whether 0 W is a reading: of a part that may be unused.
    may_be_off: bool,
    longest_gap: Duration,
    /// `None` before the first good reading.
    integral: Option<PowerIntegral>,
    implausible: u32,
}

impl PowerGauge {
    /// `rated`: the highest power that the device states, in microwatts.
    pub fn new(device: Arc<str>, rated: Option<u64>, longest_gap: Duration) -> Self {
        let plausibility = Plausibility::rated(rated);
        Self {
            device,
            plausibility,
            may_be_off: false,
            longest_gap,
            integral: None,
            implausible: 0,
        }
    }

    /// Accepts 0 W, for a part that may be unused.
    #[must_use]
    pub fn that_may_be_off(mut self) -> Self {
        self.may_be_off = true;
        self
    }

    /// Takes in a reading in microwatts. Energy before the first one is unknown.
    pub fn add(&mut self, microwatts: u64, at: MonotonicNs) -> Result<Sample, SensorError> {
        self.check(microwatts)?;
        self.plausibility.accept_power(microwatts);
        if let Some(integral) = &mut self.integral {
            return Ok(integral.add(microwatts, at));
        }
        let started = PowerIntegral::starting_at(microwatts, at, self.longest_gap);
        let first = Sample { whole: false, ..started.last() };
        self.integral = Some(started);
        Ok(first)
    }

    fn check(&mut self, microwatts: u64) -> Result<(), SensorError> {
        let device = || Arc::clone(&self.device);
        if microwatts == 0 && !self.may_be_off {
            return Err(SensorError::NoPower { device: device() });
        }
        if self.plausibility.judge_power(microwatts) == Verdict::Impossible {
            self.implausible += 1;
            if self.plausibility.is_rated() || self.implausible < BELIEVED_AFTER {
                let why = format!("reads {} W, far above what it draws", microwatts / 1_000_000);
                return Err(SensorError::Refused { device: device(), why });
            }
        }
        self.implausible = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> MonotonicNs {
        MonotonicNs(ms * 1_000_000)
    }

    /// A gauge that has read 90 W for a second.
    fn gauge(rated: Option<u64>) -> PowerGauge {
        let mut gauge = PowerGauge::new("g".into(), rated, LONGEST_GAP);
        for tick in 0..=20 {
            gauge.add(90_000_000, ms(tick * 50)).unwrap();
        }
        gauge
    }

    #[test]
    fn power_is_integrated_from_the_first_reading_on() {
        let sample = gauge(None).add(90_000_000, ms(1050)).unwrap();
        assert_eq!((sample.total.0, sample.whole), (94_500_000, true));
    }

    #[test]
    fn garbage_is_refused_and_a_higher_power_believed_once_it_lasts() {
        let mut gauge = gauge(None);
        for tick in 0..2 {
            let error = gauge.add(20_000_000_000, ms(1050 + tick * 50)).unwrap_err();
            assert!(error.to_string().contains("20000 W"), "{error}");
        }
        assert!(gauge.add(20_000_000_000, ms(1150)).is_ok());
    }

    #[test]
    fn a_rated_device_is_never_believed_beyond_twice_its_limit() {
        let mut gauge = gauge(Some(100_000_000));
        assert!(gauge.add(190_000_000, ms(1050)).is_ok());
        for tick in 0..9 {
            assert!(gauge.add(300_000_000, ms(1100 + tick * 50)).is_err());
        }
    }

    #[test]
    fn only_a_part_that_may_be_unused_may_read_0_w() {
        let mut gauge = PowerGauge::new("g".into(), None, LONGEST_GAP);
        assert_eq!(gauge.add(0, ms(50)).unwrap_err().label(), "no_power");
        assert!(gauge.that_may_be_off().add(0, ms(100)).is_ok());
    }
}
