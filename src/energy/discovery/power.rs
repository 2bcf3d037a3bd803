//! Mean power of the selected sensors, for `wattgate check --energy`.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::SelectedSensor;
use crate::energy::sensors::sensor::{Sample, Sensor, SensorError};
use crate::units::Watts;

/// Name and mean power of a device; `None` if its counter did not change.
pub type MeasuredPower = (Arc<str>, Result<Option<Watts>, SensorError>);

/// How long a polled sensor may take for its first reading.
const FIRST_READING_TIMEOUT: Duration = Duration::from_secs(3);

/// Reads each sensor twice, `apart` from each other, and returns the mean power between.
pub async fn measure(sensors: &mut [SelectedSensor], apart: Duration) -> Vec<MeasuredPower> {
    let stop = CancellationToken::new();
    let mut pollers = JoinSet::new();
    for poller in sensors.iter_mut().filter_map(|one| one.sensor.take_poller()) {
        pollers.spawn(poller.run(stop.clone()));
    }
    let mut first = Vec::with_capacity(sensors.len());
    for one in &mut *sensors {
        first.push(first_reading(&mut *one.sensor).await);
    }
    sleep(apart).await;
    let measured = sensors.iter_mut().zip(first).map(|(one, earlier)| {
        let watts = earlier.and_then(|earlier| Ok(mean_power(earlier, one.sensor.read()?)));
        (Arc::clone(&one.sensor.device().name), watts)
    });
    let measured = measured.collect();
    stop.cancel();
    pollers.join_all().await;
    measured
}

async fn first_reading(sensor: &mut dyn Sensor) -> Result<Sample, SensorError> {
    const STEP: Duration = Duration::from_millis(20);
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
