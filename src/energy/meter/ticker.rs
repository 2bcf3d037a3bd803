//! The meter thread: reads every sensor at each tick, settles attempts and sends what has settled.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::state::MeterState;
use super::suspend::SuspendDetector;
use crate::energy::attribution::Settled;
use crate::energy::sensors::sensor::{Sample, SensorError};
use crate::units::{Microjoules, MonotonicNs};

/// State of the meter thread.
pub(super) struct Ticker {
    state: Arc<MeterState>,
    settlements: mpsc::Sender<Settled>,
    suspends: SuspendDetector,
    /// False once energy was not conserved: logged once, and exported as a metric.
    conserving: bool,
}

impl Ticker {
    pub(super) fn new(state: Arc<MeterState>, settlements: mpsc::Sender<Settled>) -> Self {
        Self { state, settlements, suspends: SuspendDetector::start(), conserving: true }
    }

    /// Ticks at `cadence` until the other end of `stopped` is dropped, and once more then.
    pub(super) fn run(&mut self, cadence: Duration, stopped: &Receiver<()>) {
        let mut next = Instant::now() + cadence;
        loop {
            let wait = next.saturating_duration_since(Instant::now());
            let last = stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout);
            self.tick();
            self.state.busy_ns.store(thread_cpu_ns(), Ordering::Relaxed);
            if last {
                break;
            }
            next += cadence;
            // After a stall the cadence restarts: catching up would read one instant many times.
            if next < Instant::now() {
                next = Instant::now() + cadence;
            }
        }
    }

    fn tick(&mut self) {
        let mut probes = self.state.probes.lock();
        let suspended = self.suspends.suspended();
        let readings: Vec<(MonotonicNs, Result<Sample, SensorError>)> = probes
            .list
            .iter_mut()
            .map(|probe| {
                let reading = probe.sensor.read();
                (MonotonicNs::now(), reading)
            })
            .collect();
        let mut attribution = self.state.attribution.lock();
        if let Some(missed) = suspended {
            tracing::warn!(
                ?missed,
                "system was suspended; energy of attempts in that period is unknown"
            );
            attribution.suspended(missed);
        }
        probes.tell_mirrors(&mut attribution);
        let mut readings = readings.into_iter();
        probes.list.retain_mut(|probe| {
            readings.next().is_none_or(|(at, reading)| probe.book(&mut attribution, at, reading))
        });
        probes.substitute(&mut attribution, MonotonicNs::now());
        probes.look_for_cards(&mut attribution);
        let settled = attribution.settle(MonotonicNs::now(), self.settlements.capacity());
        let error = attribution.conservation_error();
        drop((attribution, probes));
        if error > Microjoules::ZERO && std::mem::take(&mut self.conserving) {
            tracing::error!(%error, "the energy books do not add up");
        }
        for settled in settled {
            // There is room, since this thread is the only sender; an error means that the receiver
            // is closed.
            drop(self.settlements.try_send(settled));
        }
    }
}

/// CPU time of the calling thread.
fn thread_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
