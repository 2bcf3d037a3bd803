//! The meter: one thread that reads the sensors at a fixed cadence, and the handle through which engines and requests
//! report to it.
//!
//! All effects of the energy module are here: the thread, the clock, the locks. What follows from readings and reports
//! is decided in [`super::accounts`], which is pure.

use std::io;
use std::process;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::accounts::{Accounts, Books, DeviceId, Settings, Settled};
use super::config::{Config, SensorChoice};
use super::cpu_model::ProcessSensor;
use super::device::Serves;
use super::figure::{EnergyFigure, Source};
use super::rapl::{self, Discovery};
use super::sensor::{Sensor, SensorError};
use super::work::WorkSpan;
use crate::units::{AttemptId, Microjoules, MonotonicNs};

/// Why the meter cannot start.
#[derive(Debug, thiserror::Error)]
pub enum MeterError {
    #[error("energy.sensors is `rapl`, but no RAPL counter can be read: {0}")]
    NoRapl(Discovery),
    #[error("cannot start the meter thread: {0}")]
    Thread(io::Error),
}

/// The running meter. Owns its thread: stopping or dropping it takes a last reading and joins.
#[derive(Debug)]
pub struct Meter {
    handle: MeterHandle,
    /// Dropped to stop the thread.
    running: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// How many settlements may wait for the reader before further attempts wait in the books instead.
const SETTLEMENTS: usize = 1024;

impl Meter {
    /// Chooses the sensors and starts reading them. Settlements come through the receiver until the meter stops.
    pub fn start(config: &Config) -> Result<(Self, mpsc::Receiver<Settled>), MeterError> {
        let shared = Arc::new(Shared::new(config)?);
        let (running, stopped) = sync_channel(0);
        let (sender, settlements) = mpsc::channel(SETTLEMENTS);
        let ticking = Arc::clone(&shared);
        let cadence = Duration::from_millis(config.cadence_ms);
        let thread = thread::Builder::new()
            .name("energy-meter".to_owned())
            .spawn(move || {
                let mut next = Instant::now() + cadence;
                loop {
                    let wait = next.saturating_duration_since(Instant::now());
                    let last = stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout);
                    ticking.tick(&sender);
                    if last {
                        break;
                    }
                    // After a stall the beat starts afresh: catching up would read the same instant many times.
                    next = (next + cadence).max(Instant::now());
                }
            })
            .map_err(MeterError::Thread)?;
        let handle = MeterHandle { shared };
        Ok((Self { handle, running: Some(running), thread: Some(thread) }, settlements))
    }

    pub fn handle(&self) -> MeterHandle {
        self.handle.clone()
    }

    /// Takes a last reading, settles what is final by then and joins the thread; at most a cadence's wait.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the meter thread panicked");
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.join();
    }
}

/// Reports to the meter and asks it. Cheap to clone; every call holds a lock for microseconds and does not wait for the
/// network or a model. Only starting and stopping an engine touch a (virtual) file.
#[derive(Clone, Debug)]
pub struct MeterHandle {
    shared: Arc<Shared>,
}

impl MeterHandle {
    /// An engine process began. Call it at once after the spawn: energy since its birth is booked from here on.
    pub fn engine_started(&self, model: &Arc<str>, pid: u32) {
        let Some(config) = &self.shared.process_model else { return };
        let name = format!("engine:{model}").into();
        let sensor = ProcessSensor::new(name, &config.proc_root, pid, config.cpu_model());
        let mut probes = lock(&self.shared.probes);
        probes.retain(|probe| probe.serves != Serves::Engine(Arc::clone(model)));
        let serves = Serves::Engine(Arc::clone(model));
        probes.push(self.shared.probe(Box::new(sensor), serves, Some(pid)));
    }

    /// An engine process ended. Called before the child is reaped, its last CPU time can still be read; afterwards the
    /// reading of the last tick stands.
    pub fn engine_stopped(&self, model: &Arc<str>, pid: u32) {
        let mut probes = lock(&self.shared.probes);
        let serves = Serves::Engine(Arc::clone(model));
        let ended = |probe: &mut Probe| probe.serves == serves && probe.pid == Some(pid);
        for mut probe in probes.extract_if(.., ended) {
            let reading = probe.sensor.read();
            let mut accounts = lock(&self.shared.accounts);
            if let Ok(total) = reading {
                accounts.reading(probe.device, MonotonicNs::now(), total, probe.sensor.resets());
            }
            accounts.retire(probe.device);
        }
    }

    /// An attempt is about to be handed to the model's engine. Every attempt opened must be closed.
    pub fn attempt_opened(&self, model: &Arc<str>, attempt: AttemptId) {
        lock(&self.shared.accounts).open(model, attempt, MonotonicNs::now());
    }

    /// The engine finished a step.
    pub fn work(&self, model: &Arc<str>, span: WorkSpan) {
        lock(&self.shared.accounts).work(model, span, MonotonicNs::now());
    }

    /// The attempt ended, however it did. Best called when the engine has let go of it: a step reported after the attempt
    /// has settled is counted as dropped, and its energy goes to the others or stays unattributed.
    pub fn attempt_closed(&self, _model: &Arc<str>, attempt: AttemptId) {
        lock(&self.shared.accounts).close(attempt, MonotonicNs::now());
    }

    /// Marginal energy of an attempt so far; unknown once it has settled.
    pub fn provisional(&self, attempt: AttemptId) -> EnergyFigure {
        lock(&self.shared.accounts).provisional(attempt)
    }

    /// Expected marginal energy of an answer by a local model, for routing.
    pub fn expected(&self, model: &str, prefill_tokens: u64, decode_tokens: u64) -> EnergyFigure {
        lock(&self.shared.accounts).expected(model, prefill_tokens, decode_tokens)
    }

    pub fn books(&self) -> Books {
        lock(&self.shared.accounts).books(MonotonicNs::now())
    }
}

/// Locks are always taken in this order: probes, accounts.
#[derive(Debug)]
struct Shared {
    /// The sensors being read. The thread holds this lock while it reads files, so requests never wait for it.
    probes: Mutex<Vec<Probe>>,
    accounts: Mutex<Accounts>,
    /// Set when processes are metered by the CPU model.
    process_model: Option<Config>,
}

struct Probe {
    device: DeviceId,
    serves: Serves,
    /// Of the engine process, if it is one's.
    pid: Option<u32>,
    sensor: Box<dyn Sensor>,
    /// Whether the last reading failed: a failure is logged once, not at every tick.
    failing: bool,
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe").field("device", self.sensor.device()).finish_non_exhaustive()
    }
}

impl Shared {
    fn new(config: &Config) -> Result<Self, MeterError> {
        let counters = match config.sensors {
            SensorChoice::Auto | SensorChoice::Rapl => {
                rapl::discover(&config.sysfs_root, config.idle_watts)
            }
            SensorChoice::CpuModel | SensorChoice::None => Discovery::default(),
        };
        if config.sensors == SensorChoice::Rapl && counters.used.is_empty() {
            return Err(MeterError::NoRapl(counters));
        }
        // The packages already contain every process: counting those too would count twice.
        let process_model = (counters.used.is_empty() && config.sensors != SensorChoice::None)
            .then(|| config.clone());
        let settings = Settings {
            cadence: Duration::from_millis(config.cadence_ms),
            weights: config.token_weights(),
            cpu_model: config.cpu_model(),
            source: if counters.used.is_empty() { Source::CpuModel } else { Source::Rapl },
        };
        tracing::info!(sensors = %counters, cpu_model = process_model.is_some(), "energy sensors chosen");
        let shared = Self {
            probes: Mutex::default(),
            accounts: Mutex::new(Accounts::new(settings)),
            process_model,
        };
        lock(&shared.probes).extend(shared.first_probes(counters));
        Ok(shared)
    }

    /// The counters found, or else the gateway's own process; engines follow as they start.
    fn first_probes(&self, counters: Discovery) -> Vec<Probe> {
        let gateway = self.process_model.as_ref().map(|config| {
            let (name, root, model) = ("gateway".into(), &config.proc_root, config.cpu_model());
            let sensor = ProcessSensor::new(name, root, process::id(), model);
            self.probe(Box::new(sensor), Serves::Overhead, None)
        });
        let counters = counters
            .used
            .into_iter()
            .map(|sensor| self.probe(Box::new(sensor), Serves::AllEngines, None));
        counters.chain(gateway).collect()
    }

    fn probe(&self, sensor: Box<dyn Sensor>, serves: Serves, pid: Option<u32>) -> Probe {
        let info = sensor.device().clone();
        let device = lock(&self.accounts).add_device(info, serves.clone(), MonotonicNs::now());
        Probe { device, serves, pid, sensor, failing: false }
    }

    fn tick(&self, settlements: &mpsc::Sender<Settled>) {
        let mut probes = lock(&self.probes);
        let readings: Vec<(MonotonicNs, Result<Microjoules, SensorError>)> = probes
            .iter_mut()
            .map(|probe| {
                let reading = probe.sensor.read();
                (MonotonicNs::now(), reading)
            })
            .collect();
        let mut accounts = lock(&self.accounts);
        let mut readings = readings.into_iter();
        probes.retain_mut(|probe| {
            readings.next().is_none_or(|(at, reading)| probe.book(&mut accounts, at, reading))
        });
        let settled = accounts.settle(MonotonicNs::now(), settlements.capacity());
        drop((accounts, probes));
        for settled in settled {
            // There is room, since nobody else sends; if the reader is gone, nobody wants to know.
            drop(settlements.try_send(settled));
        }
    }
}

impl Probe {
    /// Books a reading; false when the device has ended.
    fn book(
        &mut self,
        accounts: &mut Accounts,
        at: MonotonicNs,
        reading: Result<Microjoules, SensorError>,
    ) -> bool {
        let device = &self.sensor.device().name;
        match reading {
            Ok(total) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!(%device, "the energy sensor can be read again");
                }
                accounts.reading(self.device, at, total, self.sensor.resets());
                true
            }
            // A process that has ended is no failure. A counter that is gone may come back.
            Err(SensorError::Gone { .. }) if self.sensor.device().source == Source::CpuModel => {
                accounts.retire(self.device);
                false
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%device, %error, "an energy sensor cannot be read: its energy is unknown until it can");
                }
                accounts.read_failed(self.device);
                true
            }
        }
    }
}

/// Nothing under these locks can be left half done in a way that a later reader would misread, so a panic elsewhere is
/// no reason to stop metering.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
