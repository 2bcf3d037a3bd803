//! A sensor whose figures a poll task fetches over HTTP.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::energy::polling::poller::{PollTarget, Poller};
use crate::energy::sensors::discovered::SkipReason;
use crate::energy::sensors::latest_figure::{Figure, LatestFigure};
use crate::energy::sensors::sensor::{DeviceInfo, Sample, Sensor, SensorError};
use crate::units::MonotonicNs;

/// Reads the figure from a response body.
pub type Parse = Box<dyn Fn(&[u8]) -> Result<Figure, String> + Send + Sync>;

/// Has readings once its poller runs.
pub struct PolledSensor {
    info: DeviceInfo,
    latest: Arc<Mutex<LatestFigure>>,
    poller: Option<Poller>,
    every: Duration,
}

impl PolledSensor {
    /// A sensor of the figures that `parse` reads from `target`. Figures older than `stale_after`
    /// are errors.
    pub fn create(
        info: DeviceInfo,
        target: PollTarget,
        stale_after: Duration,
        parse: Parse,
    ) -> Result<Box<dyn Sensor>, SkipReason> {
        let latest = Arc::new(Mutex::new(LatestFigure::new(Arc::clone(&info.name), stale_after)));
        let filled = Arc::clone(&latest);
        let deliver = move |at, answer: Result<Vec<u8>, String>| {
            let figure = answer.and_then(|body| parse(&body));
            filled.lock().put(at, figure);
        };
        let every = target.every;
        let poller =
            Poller::new(target, deliver).map_err(|error| SkipReason::Driver(error.to_string()))?;
        Ok(Box::new(Self { info, latest, poller: Some(poller), every }))
    }
}

impl Sensor for PolledSensor {
    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    fn read(&mut self) -> Result<Sample, SensorError> {
        self.latest.lock().newest(MonotonicNs::now())
    }

    fn resets(&self) -> u64 {
        self.latest.lock().resets()
    }

    fn glitches(&self) -> u64 {
        self.latest.lock().glitches()
    }

    fn poll_interval(&self) -> Option<Duration> {
        Some(self.every)
    }

    fn take_poller(&mut self) -> Option<Poller> {
        self.poller.take()
    }
}
