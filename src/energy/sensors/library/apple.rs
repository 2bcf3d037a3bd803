//! Sensor of Apple's chips: the energy model of their power management, for processor, GPU, neural
//! engine and memory.
//!
//! The interface is private and blocks while it averages power, so a thread of its own reads it.
//! Needs no root. A mean of 0 W is refused: newer systems freeze these counters for programs
//! without an entitlement.

use crate::energy::sensors::discovered::Discovered;

/// The chip of this machine, if Apple made it.
#[cfg(not(target_os = "macos"))]
pub fn find() -> Vec<Discovered> {
    Vec::new()
}

#[cfg(target_os = "macos")]
pub fn find() -> Vec<Discovered> {
    /// Duration of one reading, in milliseconds.
    const READING_MS: u32 = 200;
    let candidate = chip::candidate(|| {
        let mut sampler = macmon::Sampler::new().map_err(|error| error.to_string())?;
        Ok(move || {
            let means = sampler.get_metrics(READING_MS).map_err(|error| error.to_string())?;
            // The sum of processor, GPU and neural engine.
            Ok(f64::from(means.all_power) + f64::from(means.ram_power))
        })
    });
    vec![candidate]
}

#[cfg(any(test, target_os = "macos"))]
mod chip {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::{self, JoinHandle};
    use std::time::{Duration, Instant};

    use parking_lot::Mutex;

    use crate::energy::figure::Quality;
    use crate::energy::sensors::coverage::Coverage;
    use crate::energy::sensors::discovered::{Discovered, Kind, SkipReason, info};
    use crate::energy::sensors::latest_figure::{Figure, LatestFigure};
    use crate::energy::sensors::sensor::{Band, DeviceInfo, Sample, Sensor, SensorError};
    use crate::units::MonotonicNs;

    /// Age above which a mean is stale.
    const STALE_AFTER: Duration = Duration::from_secs(5);

    /// An assumption: Apple publishes no accuracy of its model.
    const BAND: Band = Band { low: 0.9, high: 1.1 };

    /// The chip as one device. `open` returns a function that blocks for a while and returns the
    /// mean watts of that time.
    pub(super) fn candidate<F, G>(open: F) -> Discovered
    where
        F: FnOnce() -> Result<G, String> + Send + 'static,
        G: FnMut() -> Result<f64, String>,
    {
        let info = info("apple-soc", Kind::Apple, Quality::Estimated, BAND);
        let sensor = ChipSensor::start(info.clone(), open);
        Discovered {
            kind: Kind::Apple,
            info,
            coverage: Coverage::Processor,
            at: "IOReport".to_owned(),
            sensor,
        }
    }

    struct ChipSensor {
        info: DeviceInfo,
        latest: Arc<Mutex<LatestFigure>>,
        stopping: Arc<AtomicBool>,
        thread: Option<JoinHandle<()>>,
    }

    impl ChipSensor {
        fn start<F, G>(info: DeviceInfo, open: F) -> Result<Box<dyn Sensor>, SkipReason>
        where
            F: FnOnce() -> Result<G, String> + Send + 'static,
            G: FnMut() -> Result<f64, String>,
        {
            let latest =
                Arc::new(Mutex::new(LatestFigure::new(Arc::clone(&info.name), STALE_AFTER)));
            let stopping = Arc::new(AtomicBool::new(false));
            let (filled, stopped) = (Arc::clone(&latest), Arc::clone(&stopping));
            let put = move |figure| {
                let mut latest = filled.lock();
                latest.put(MonotonicNs::now(), figure);
            };
            let thread = thread::Builder::new()
                .name("energy-apple".to_owned())
                .spawn(move || match open() {
                    Ok(mean_watts) => sum(mean_watts, &stopped, put),
                    Err(why) => put(Err(why)),
                })
                .map_err(|error| SkipReason::Driver(error.to_string()))?;
            Ok(Box::new(Self { info, latest, stopping, thread: Some(thread) }))
        }
    }

    /// Integrates the means until stopped; a mean covers the time since the one before.
    fn sum(
        mut mean_watts: impl FnMut() -> Result<f64, String>,
        stopping: &AtomicBool,
        put: impl Fn(Result<Figure, String>),
    ) {
        let (mut joules, mut last) = (0.0, Instant::now());
        while !stopping.load(Ordering::Relaxed) {
            let mean = mean_watts();
            let seconds = last.elapsed().as_secs_f64();
            last = Instant::now();
            put(mean.and_then(|watts| {
                if watts <= 0.0 || !watts.is_finite() {
                    return Err(format!("the chip's energy model reports {watts} W"));
                }
                joules += watts * seconds;
                Ok(Figure::Joules(joules))
            }));
        }
    }

    impl Sensor for ChipSensor {
        fn device(&self) -> &DeviceInfo {
            &self.info
        }

        fn read(&mut self) -> Result<Sample, SensorError> {
            let latest = self.latest.lock();
            latest.newest(MonotonicNs::now())
        }
    }

    impl Drop for ChipSensor {
        fn drop(&mut self) {
            self.stopping.store(true, Ordering::Relaxed);
            if let Some(thread) = self.thread.take()
                && thread.join().is_err()
            {
                tracing::error!("the thread that reads the chip's energy model panicked");
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// A sensor over a chip that draws `watts`, ten times a tenth of a second.
        fn reading(watts: f64) -> Result<Sample, SensorError> {
            let open = move || {
                Ok(move || {
                    thread::sleep(Duration::from_millis(5));
                    Ok(watts)
                })
            };
            let mut sensor = candidate(open).sensor.unwrap();
            let patience = Instant::now() + Duration::from_mins(1);
            loop {
                assert!(Instant::now() < patience);
                match sensor.read() {
                    Err(SensorError::Waiting { .. }) => thread::sleep(Duration::from_millis(1)),
                    Ok(sample) if sample.total.0 < 100_000 => {
                        thread::sleep(Duration::from_millis(1));
                    }
                    answer => return answer,
                }
            }
        }

        #[test]
        fn means_are_summed_over_the_time_they_stand_for() {
            let sample = reading(20.0).unwrap();
            assert!(sample.whole && sample.total.0 >= 100_000, "{sample:?}");
        }

        #[test]
        fn a_frozen_energy_model_is_no_zero() {
            let error = reading(0.0).unwrap_err();
            assert!(error.to_string().contains("reports 0 W"), "{error}");
        }

        #[test]
        fn a_chip_that_cannot_be_opened_says_why() {
            let open = || -> Result<fn() -> Result<f64, String>, String> { Err("no chip".into()) };
            let mut sensor = candidate(open).sensor.unwrap();
            let patience = Instant::now() + Duration::from_mins(1);
            while matches!(sensor.read(), Err(SensorError::Waiting { .. })) {
                assert!(Instant::now() < patience);
            }
            assert!(sensor.read().unwrap_err().to_string().contains("no chip"));
        }
    }
}
