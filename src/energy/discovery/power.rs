//! Watching of the selected sensors for a moment, for `wattgate check --energy`: their mean power,
//! and which of them show one counter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::SelectedSensor;
use crate::energy::sensors::mirrors::{Mirrors, Relation, Start};
use crate::energy::sensors::sensor::{Sample, Sensor, SensorError};
use crate::units::Watts;

/// What a sensor showed while it was watched.
#[derive(Debug)]
pub struct Watched {
    pub device: Arc<str>,
    /// Mean power; `None` if its counter did not change.
    pub power: Result<Option<Watts>, SensorError>,
    pub relation: Relation,
    /// How long it was watched.
    pub watched: Duration,
}

/// How long a polled sensor may take for its first reading.
const FIRST_READING_TIMEOUT: Duration = Duration::from_secs(3);
/// Time between two readings.
const STEP: Duration = Duration::from_millis(20);
/// Longest time for which sensors that are polled rarely are watched.
const LONGEST: Duration = Duration::from_secs(8);

/// Watches the sensors for `shortest`, or longer if one is polled more rarely.
pub async fn watch(sensors: &mut [SelectedSensor], shortest: Duration) -> Vec<Watched> {
    let stop = CancellationToken::new();
    let mut pollers = JoinSet::new();
    for poller in sensors.iter_mut().filter_map(|one| one.sensor.take_poller()) {
        pollers.spawn(poller.run(stop.clone()));
    }
    let mut first = Vec::with_capacity(sensors.len());
    for one in &mut *sensors {
        first.push(first_reading(&mut *one.sensor).await);
    }
    let polled = sensors.iter().filter_map(|one| one.sensor.poll_interval()).max();
    let watched = polled.map_or(shortest, |every| shortest.max(every * 3 / 2).min(LONGEST));
    let (mut mirrors, end) = (Mirrors::starting_at(&starts(sensors)), Instant::now() + watched);
    let mut last: Vec<Result<Sample, SensorError>> = Vec::new();
    while Instant::now() < end {
        sleep(STEP).await;
        last = sensors.iter_mut().map(|one| one.sensor.read()).collect();
        let raw: BTreeMap<Arc<str>, u64> =
            starts(sensors).into_iter().map(|start| (start.name, start.raw)).collect();
        mirrors.compare(|name| raw.get(name).copied());
    }
    let shown = sensors.iter().zip(first.into_iter().zip(last)).map(|(one, (first, last))| {
        let device = Arc::clone(&one.sensor.device().name);
        let power = first.and_then(|first| Ok(mean_power(first, last?)));
        let relation = mirrors.relation(&device);
        Watched { device, power, relation, watched }
    });
    let shown = shown.collect();
    stop.cancel();
    pollers.join_all().await;
    shown
}

/// The sensors that read a hardware counter.
pub fn starts(sensors: &[SelectedSensor]) -> Vec<Start> {
    let counters = sensors.iter().filter_map(|one| {
        let name = Arc::clone(&one.sensor.device().name);
        Some(Start { name, coverage: one.coverage, raw: one.sensor.raw_count()? })
    });
    counters.collect()
}

async fn first_reading(sensor: &mut dyn Sensor) -> Result<Sample, SensorError> {
    for _ in 0..FIRST_READING_TIMEOUT.as_millis() / STEP.as_millis() {
        match sensor.read() {
            Err(SensorError::Waiting { .. }) => sleep(STEP).await,
            reading => return reading,
        }
    }
    sensor.read()
}

fn mean_power(earlier: Sample, later: Sample) -> Option<Watts> {
    let seconds = (later.at - earlier.at) as f64 / 1e9;
    let joules = later.total.saturating_sub(earlier.total).joules().0;
    (seconds > 0.0 && later.whole).then(|| Watts(joules / seconds))
}
