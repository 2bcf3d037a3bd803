//! Calibration of a sensor against a wall meter: steps of load and the straight line through them.
//!
//! A poor fit is refused: a wrong calibration is worse than an honest estimate.

use std::time::Duration;

use futures::future::{join_all, try_join};
use serde::{Deserialize, Serialize};

use super::client::{ClientError, Gateway};
use super::scrape;
use super::wall::{self, Reading, WallError, WallMeter};
use crate::energy::{Calibration, Source};
use crate::units::Watts;

/// Minimum R² of the line.
const R_SQUARED_MIN: f64 = 0.9;
/// Any line fits fewer steps.
const STEPS_MIN: usize = 4;
const POLL_EVERY: Duration = Duration::from_millis(250);

/// Load that keeps the machine busy.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    pub model: &'a str,
    pub local: bool,
    /// Requests at a time in each step; 0: idle.
    pub levels: &'a [u32],
    /// Start of a step that is left out, while power still rises.
    pub ramp: Duration,
    /// Length of the counted part of a step.
    pub step: Duration,
}

/// One step of load.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub requests: u32,
    /// Seconds since the Unix epoch.
    pub start_s: f64,
    pub end_s: f64,
    /// Mean power by the sensor, including that of the gateway itself.
    pub sensor_watts: f64,
}

/// Steps, and the sensor that was read during them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Steps {
    pub source: Source,
    pub steps: Vec<Step>,
}

#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Wall(#[from] WallError),
    #[error("no sensor of this machine can be read: run `wattgate check --energy` to see why")]
    NoSensor,
    #[error(
        "the wall meter covers {covered} of {steps} steps, and {STEPS_MIN} are needed; they ran from {from} to {to}: record that time, and repeat with --resume"
    )]
    NotCovered { covered: usize, steps: usize, from: String, to: String },
    #[error(
        "refused: the sensor explains {:.0} % of what the wall meter shows, and {:.0} % are needed; stop what else runs on the machine, check that the meter feeds this machine only and that both clocks agree, and take longer steps",
        .0 * 100.0, R_SQUARED_MIN * 100.0
    )]
    Unexplained(f64),
    #[error(
        "refused: wall power falls when sensor power rises; check that the meter feeds this machine"
    )]
    Falling,
}

/// Runs the steps. Polls a smart plug meanwhile; a CSV file is read afterwards by [`fit`].
pub async fn run(
    gateway: &Gateway,
    load: Load<'_>,
    meter: &WallMeter,
    progress: &dyn Fn(u32),
) -> Result<(Steps, Vec<Reading>), CalibrateError> {
    if matches!(meter, WallMeter::Csv(_)) {
        return Ok((steps(gateway, load, progress).await?, Vec::new()));
    }
    let (done, mut ended) = tokio::sync::watch::channel(false);
    let running = async {
        let steps = steps(gateway, load, progress).await;
        let _ = done.send(true);
        steps
    };
    let polling = async {
        // The first reading must succeed; a later failure leaves a gap.
        let mut readings = vec![wall::ask(meter, gateway.http()).await?];
        while !*ended.borrow() {
            readings.extend(wall::ask(meter, gateway.http()).await);
            let _ended_or_time = tokio::time::timeout(POLL_EVERY, ended.changed()).await;
        }
        Ok(readings)
    };
    try_join(running, polling).await
}

async fn steps(
    gateway: &Gateway,
    load: Load<'_>,
    progress: &dyn Fn(u32),
) -> Result<Steps, CalibrateError> {
    let source = source(&gateway.metrics().await?).ok_or(CalibrateError::NoSensor)?;
    let mut steps = Vec::with_capacity(load.levels.len());
    for &requests in load.levels {
        progress(requests);
        steps.push(step(gateway, load, requests, source).await?);
    }
    Ok(Steps { source, steps })
}

async fn step(
    gateway: &Gateway,
    load: Load<'_>,
    requests: u32,
    source: Source,
) -> Result<Step, CalibrateError> {
    let streams = (0..requests).map(|_| async {
        loop {
            if let Err(error) = gateway.keep_busy(load.model, 64, load.local).await {
                return error;
            }
        }
    });
    let watching = async {
        tokio::time::sleep(load.ramp).await;
        let (start_s, before) = (wall::unix_now_s(), gateway.metrics().await?);
        let watched = tokio::time::Instant::now();
        tokio::time::sleep(load.step).await;
        let after = gateway.metrics().await?;
        let seconds = watched.elapsed().as_secs_f64();
        let joules = |metrics: &str| joules_of(metrics, source).ok_or(CalibrateError::NoSensor);
        let sensor_watts = (joules(&after)? - joules(&before)?).max(0.0) / seconds;
        Ok(Step { requests, start_s, end_s: wall::unix_now_s(), sensor_watts })
    };
    tokio::select! {
        step = watching => step,
        // A stream ends only with an error.
        errors = join_all(streams), if requests > 0 => {
            Err(errors.into_iter().next().map_or(CalibrateError::NoSensor, CalibrateError::Client))
        }
    }
}

/// The source of most of the energy so far.
fn source(metrics: &str) -> Option<Source> {
    let sources = [
        Source::Rapl,
        Source::Nvml,
        Source::Hwmon,
        Source::Ina3221,
        Source::Apple,
        Source::Battery,
        Source::CpuModel,
    ];
    let known =
        sources.into_iter().filter_map(|source| Some((source, joules_of(metrics, source)?)));
    known.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(source, _)| source)
}

fn joules_of(metrics: &str, source: Source) -> Option<f64> {
    let of_source = |labels: &str| scrape::has(labels, "source", source.label());
    scrape::sum(metrics, "wattgate_device_energy_joules_total", of_source)
}

/// Fits `wall = offset + gain · sensor` to the steps that the wall meter covers.
pub fn fit(
    steps: &Steps,
    readings: &[Reading],
    meter: &WallMeter,
    measured: String,
) -> Result<Calibration, CalibrateError> {
    let covered: Vec<Level> = steps
        .steps
        .iter()
        .filter_map(|step| {
            let wall = wall::mean_watts(readings, step.start_s, step.end_s)?;
            Some(Level { sensor: step.sensor_watts, wall })
        })
        .collect();
    if covered.len() < STEPS_MIN {
        return Err(not_covered(covered.len(), &steps.steps));
    }
    let line = Line::through(&covered).ok_or(CalibrateError::Unexplained(0.0))?;
    let r_squared = line.r_squared(&covered);
    if r_squared < R_SQUARED_MIN || !r_squared.is_finite() {
        return Err(CalibrateError::Unexplained(r_squared.max(0.0)));
    }
    if line.gain <= 0.0 {
        return Err(CalibrateError::Falling);
    }
    let (low, high) = band(&covered);
    Ok(Calibration {
        source: steps.source,
        gain: line.gain,
        offset: Watts(line.offset),
        r_squared,
        steps: u32::try_from(covered.len()).unwrap_or(u32::MAX),
        low,
        high,
        meter: meter.to_string(),
        measured,
    })
}

fn not_covered(covered: usize, steps: &[Step]) -> CalibrateError {
    let time = |unix_s: Option<f64>| {
        #[expect(clippy::cast_possible_truncation, reason = "whole seconds of a date")]
        let seconds = unix_s.unwrap_or_default() as i64;
        jiff::Timestamp::from_second(seconds)
            .map_or_else(|_| seconds.to_string(), |at| at.to_string())
    };
    CalibrateError::NotCovered {
        covered,
        steps: steps.len(),
        from: time(steps.first().map(|step| step.start_s)),
        to: time(steps.last().map(|step| step.end_s)),
    }
}

/// Mean watts of one step by sensor and wall meter.
#[derive(Clone, Copy, Debug)]
struct Level {
    sensor: f64,
    wall: f64,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    offset: f64,
    gain: f64,
}

impl Line {
    /// Least squares; `None` if the sensor never moved.
    fn through(levels: &[Level]) -> Option<Self> {
        let (sensor, wall) = means(levels);
        let spread: f64 = levels.iter().map(|level| (level.sensor - sensor).powi(2)).sum();
        let together: f64 =
            levels.iter().map(|level| (level.sensor - sensor) * (level.wall - wall)).sum();
        let gain = together / spread;
        (spread > 1e-9).then_some(Self { offset: wall - gain * sensor, gain })
    }

    fn r_squared(self, levels: &[Level]) -> f64 {
        let (_, mean) = means(levels);
        let total: f64 = levels.iter().map(|level| (level.wall - mean).powi(2)).sum();
        let left: f64 = levels
            .iter()
            .map(|level| (level.wall - self.offset - self.gain * level.sensor).powi(2))
            .sum();
        1.0 - left / total
    }
}

fn means(levels: &[Level]) -> (f64, f64) {
    let mean = |of: fn(&Level) -> f64| levels.iter().map(of).sum::<f64>() / levels.len() as f64;
    (mean(|level| level.sensor), mean(|level| level.wall))
}

/// Range of the ratios between single steps and the line through the others, above idle power: the
/// least and the greatest.
fn band(levels: &[Level]) -> (f64, f64) {
    let most = levels.iter().map(|level| level.sensor).fold(0.0, f64::max);
    let ratios = levels.iter().enumerate().filter(|(_, level)| level.sensor > most / 4.0);
    let ratios = ratios.filter_map(|(left_out, level)| {
        let others = levels.iter().enumerate().filter(|(place, _)| *place != left_out);
        let line = Line::through(&others.map(|(_, level)| *level).collect::<Vec<_>>())?;
        let ratio = (level.wall - line.offset) / (line.gain * level.sensor);
        ratio.is_finite().then_some(ratio)
    });
    ratios.fold((1.0_f64, 1.0_f64), |(low, high), ratio| (low.min(ratio.max(0.0)), high.max(ratio)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six steps of 10 s with three wall readings each; `wall` computes wall power from sensor
    /// power.
    fn calibrate(wall: impl Fn(f64) -> f64) -> Result<Calibration, CalibrateError> {
        let levels = [0.05, 3.0, 5.0, 6.2, 6.6, 0.05];
        let steps: Vec<Step> = (0_u8..)
            .zip(levels)
            .map(|(place, sensor_watts)| {
                let start_s = f64::from(place) * 20.0;
                Step { requests: place.into(), start_s, end_s: start_s + 10.0, sensor_watts }
            })
            .collect();
        let readings: Vec<Reading> = steps
            .iter()
            .flat_map(|step| {
                [1.0, 4.0, 8.0].map(|later| Reading {
                    unix_s: step.start_s + later,
                    watts: wall(step.sensor_watts),
                })
            })
            .collect();
        let steps = Steps { source: Source::CpuModel, steps };
        fit(&steps, &readings, &WallMeter::Csv("wall.csv".into()), "2026-11-23".to_owned())
    }

    #[test]
    fn a_straight_relation_is_found_with_its_band() {
        let found = calibrate(|sensor| 31.0 + 2.4 * sensor).unwrap();
        assert!(
            (found.gain - 2.4).abs() < 1e-9 && (found.offset.0 - 31.0).abs() < 1e-9,
            "{found:?}"
        );
        assert!(found.is_usable() && found.r_squared > 0.999 && found.high - found.low < 1e-6);
        let bent = calibrate(|sensor| 31.0 + 2.4 * sensor + 0.15 * (sensor - 3.0).powi(2)).unwrap();
        assert!(bent.r_squared > 0.9 && bent.low < 0.97 && bent.high > 1.03, "{bent:?}");
    }

    #[test]
    fn what_the_sensor_does_not_explain_is_refused_with_advice() {
        let elsewhere =
            calibrate(|sensor| 40.0 + (sensor - 3.3).abs() * 5.0).unwrap_err().to_string();
        assert!(elsewhere.contains("90 % are needed"), "{elsewhere}");
        assert!(matches!(calibrate(|sensor| 50.0 - sensor), Err(CalibrateError::Falling)));
        assert!(matches!(calibrate(|_| 40.0), Err(CalibrateError::Unexplained(_))));
    }

    #[test]
    fn a_file_from_another_time_is_told_which_one_is_needed() {
        let steps = Steps {
            source: Source::CpuModel,
            steps: vec![Step { requests: 0, start_s: 0.0, end_s: 60.0, sensor_watts: 1.0 }],
        };
        let error = fit(&steps, &[], &WallMeter::Csv("w".into()), String::new()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("0 of 1 steps") && text.contains("1970-01-01T00:01:00Z"), "{text}");
    }
}
