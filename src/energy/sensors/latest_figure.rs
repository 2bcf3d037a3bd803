//! Energy of a device whose figures arrive at their own pace: the newest figure is stored, a read
//! looks it up. Pure.
//!
//! A stale figure is an error. Energy before the first figure, and in gaps of power readings, is
//! unknown.

use std::sync::Arc;
use std::time::Duration;

use super::counter::{Counter, Overflow};
use super::gauge::PowerGauge;
use super::sensor::{Sample, SensorError};
use crate::units::{Microjoules, MonotonicNs};

/// One figure of a polled device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Figure {
    /// Energy since an arbitrary start.
    Joules(f64),
    Watts(f64),
}

/// The newest figure and the energy accumulated so far.
#[derive(Debug)]
pub struct LatestFigure {
    device: Arc<str>,
    stale_after: Duration,
    meter: Option<Meter>,
    newest: Option<Result<Sample, SensorError>>,
    /// Why the last poll returned no figure.
    problem: Option<String>,
}

#[derive(Debug)]
enum Meter {
    Counter(Counter),
    Power(PowerGauge),
}

impl LatestFigure {
    pub fn new(device: Arc<str>, stale_after: Duration) -> Self {
        Self { device, stale_after, meter: None, newest: None, problem: None }
    }

    pub fn put(&mut self, at: MonotonicNs, figure: Result<Figure, String>) {
        match figure.and_then(micro) {
            Err(problem) => self.problem = Some(problem),
            Ok((figure, micro)) => {
                self.problem = None;
                self.newest = Some(self.advance(at, figure, micro));
            }
        }
    }

    fn advance(
        &mut self,
        at: MonotonicNs,
        figure: Figure,
        micro: u64,
    ) -> Result<Sample, SensorError> {
        match &mut self.meter {
            Some(Meter::Counter(counter)) => counter.advance(micro, at),
            Some(Meter::Power(gauge)) => gauge.add(micro, at),
            None => {
                let device = Arc::clone(&self.device);
                let (meter, first) = match figure {
                    Figure::Joules(_) => {
                        let counter = Counter::starting_at(micro, at, device, Overflow::Never)
                            .standing_still_after(self.stale_after);
                        // Energy before the first figure is unknown.
                        let first = Sample { at, whole: false, total: Microjoules::ZERO };
                        (Meter::Counter(counter), Ok(first))
                    }
                    Figure::Watts(_) => {
                        let mut gauge = PowerGauge::new(device, None, self.stale_after);
                        let first = gauge.add(micro, at);
                        (Meter::Power(gauge), first)
                    }
                };
                self.meter = Some(meter);
                first
            }
        }
    }

    pub fn newest(&self, now: MonotonicNs) -> Result<Sample, SensorError> {
        let device = || Arc::clone(&self.device);
        match &self.newest {
            None => match &self.problem {
                None => Err(SensorError::Waiting { device: device() }),
                Some(why) => Err(SensorError::Refused { device: device(), why: why.clone() }),
            },
            Some(Err(SensorError::Frozen { seconds, .. })) => {
                Err(SensorError::Frozen { device: device(), seconds: *seconds })
            }
            Some(Err(error)) => {
                Err(SensorError::Refused { device: device(), why: error.to_string() })
            }
            Some(Ok(sample)) => {
                let age_ns = now - sample.at;
                if u128::from(age_ns) <= self.stale_after.as_nanos() {
                    return Ok(*sample);
                }
                Err(match &self.problem {
                    Some(why) => SensorError::Refused { device: device(), why: why.clone() },
                    None => {
                        SensorError::Stale { device: device(), seconds: age_ns / 1_000_000_000 }
                    }
                })
            }
        }
    }

    pub fn resets(&self) -> u64 {
        match &self.meter {
            Some(Meter::Counter(counter)) => counter.resets(),
            _ => 0,
        }
    }

    pub fn glitches(&self) -> u64 {
        match &self.meter {
            Some(Meter::Counter(counter)) => counter.glitches(),
            _ => 0,
        }
    }
}

/// The figure in millionths of its unit, refused if it is implausible.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates, and what is used is checked to be below 2⁶³"
)]
fn micro(figure: Figure) -> Result<(Figure, u64), String> {
    // What 2⁶³ millionths hold; the meter of the figure judges what is plausible.
    const LIMIT: f64 = 9.2e12;
    let (amount, unit) = match figure {
        Figure::Joules(joules) => (joules, "J"),
        Figure::Watts(watts) => (watts, "W"),
    };
    // A NaN is in no range; 0 W on an active machine is an error.
    let micro = (amount * 1e6).round() as u64;
    let draws = micro > 0 || matches!(figure, Figure::Joules(_));
    if !(0.0..=LIMIT).contains(&amount) || !draws {
        return Err(format!("reports {amount} {unit}"));
    }
    Ok((figure, micro))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> MonotonicNs {
        MonotonicNs(seconds * 1_000_000_000)
    }

    fn latest() -> LatestFigure {
        LatestFigure::new("far".into(), Duration::from_secs(30))
    }

    fn sample(at: u64, microjoules: u64, whole: bool) -> Sample {
        Sample { at: s(at), total: Microjoules(microjoules), whole }
    }

    #[test]
    fn before_the_first_figure_energy_is_unknown_and_not_zero() {
        let mut latest = latest();
        assert_eq!(latest.newest(s(1)).unwrap_err().label(), "waiting");
        latest.put(s(1), Err("cannot be reached".to_owned()));
        assert!(latest.newest(s(1)).unwrap_err().to_string().contains("cannot be reached"));
        latest.put(s(2), Ok(Figure::Joules(500.0)));
        assert_eq!(latest.newest(s(2)).unwrap(), sample(2, 0, false));
    }

    #[test]
    fn a_counter_covers_the_time_since_it_last_moved_and_a_stale_one_is_unknown() {
        let mut latest = latest();
        latest.put(s(0), Ok(Figure::Joules(500.0)));
        latest.put(s(5), Ok(Figure::Joules(500.0)));
        latest.put(s(10), Ok(Figure::Joules(512.5)));
        assert_eq!(latest.newest(s(11)).unwrap(), sample(10, 12_500_000, true));
        latest.put(s(20), Err("no answer in 2000 ms".to_owned()));
        assert_eq!(latest.newest(s(25)).unwrap(), sample(10, 12_500_000, true));
        assert_eq!(latest.newest(s(41)).unwrap_err().label(), "refused");
        latest.put(s(45), Ok(Figure::Joules(520.0)));
        assert_eq!(latest.newest(s(45)).unwrap(), sample(45, 20_000_000, true));
    }

    #[test]
    fn a_gauge_is_summed_and_its_gaps_are_unknown() {
        let mut latest = latest();
        latest.put(s(0), Ok(Figure::Watts(100.0)));
        latest.put(s(10), Ok(Figure::Watts(100.0)));
        assert_eq!(latest.newest(s(10)).unwrap(), sample(10, 1_000_000_000, true));
        latest.put(s(100), Ok(Figure::Watts(100.0)));
        assert_eq!(latest.newest(s(100)).unwrap(), sample(100, 1_000_000_000, false));
    }

    #[test]
    fn a_power_of_0_w_is_an_error() {
        let mut latest = latest();
        latest.put(s(0), Ok(Figure::Watts(0.0)));
        assert!(latest.newest(s(0)).unwrap_err().to_string().contains("0 W"));
        latest.put(s(1), Ok(Figure::Joules(0.0)));
        assert!(latest.newest(s(1)).is_ok(), "a counter may just have been reset");
    }

    #[test]
    fn a_rack_may_draw_more_than_any_server() {
        let mut latest = latest();
        for poll in 0..4 {
            latest.put(s(poll * 5), Ok(Figure::Watts(120_000.0)));
        }
        assert_eq!(latest.newest(s(15)).unwrap(), sample(15, 1_800_000_000_000, true));
    }

    #[test]
    fn implausible_figures_are_errors() {
        for wrong in [f64::NAN, f64::INFINITY, -1.0, 1e19] {
            let mut latest = latest();
            latest.put(s(0), Ok(Figure::Watts(wrong)));
            latest.put(s(0), Ok(Figure::Joules(wrong)));
            assert_eq!(latest.newest(s(0)).unwrap_err().label(), "refused", "{wrong}");
        }
    }
}
