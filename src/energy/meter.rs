//! The meter: one thread that reads the sensors at a fixed cadence, and the handle through which engines and requests
//! report to it.
//!
//! All effects of the energy module are here: the thread, the clock, the locks. What follows from readings and reports
//! is decided in [`super::attribution`], which is pure.

use std::io;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::attribution::device::Scope;
use super::attribution::{Attribution, DeviceId, MeterSnapshot, Parameters, Settled};
use super::config::{Config, SensorChoice};
use super::discovery::{self, Discovery, refusals};
use super::figure::{EnergyFigure, Source};
use super::grid::rates::Rates;
use super::prediction::estimate::ExpectedTime;
use super::prediction::profile::{Profile, ProfileError};
use super::sensors::discovered::Coverage;
use super::sensors::process::cgroup;
use super::sensors::process::cpu_model::ProcessSensor;
use super::sensors::sensor::{Sample, Sensor, SensorError};
use super::work::{Tokens, WorkSpan};
use crate::units::{AttemptId, Microjoules, MonotonicNs};
use suspend::SuspendDetector;

mod suspend;

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
        let cadence = Duration::from_millis(config.cadence_ms);
        let mut ticker = Ticker {
            shared: Arc::clone(&shared),
            settlements: sender,
            sleep: SuspendDetector::start(),
            conserving: true,
        };
        let thread = thread::Builder::new()
            .name("energy-meter".to_owned())
            .spawn(move || ticker.run(cadence, &stopped))
            .map_err(MeterError::Thread)?;
        let handle = MeterHandle { shared };
        Ok((Self { handle, running: Some(running), thread: Some(thread) }, settlements))
    }

    pub fn handle(&self) -> MeterHandle {
        self.handle.clone()
    }

    /// Takes a last reading, settles what is final by then and joins the thread. Does not wait for the next beat.
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
        self.probe_engine(model, pid);
        lock(&self.shared.attribution).load_started(model, MonotonicNs::now());
    }

    /// The engine has loaded its model: what it used so far was the load.
    pub fn engine_ready(&self, model: &Arc<str>) {
        lock(&self.shared.attribution).load_ended(model, true, MonotonicNs::now());
    }

    /// Expected energy of loading a local model from a file of `bytes`.
    pub fn load_energy(&self, model: &str, bytes: u64) -> EnergyFigure {
        lock(&self.shared.attribution).load_energy(model, bytes)
    }

    fn probe_engine(&self, model: &Arc<str>, pid: u32) {
        let Some(config) = &self.shared.process_model else { return };
        let name = format!("engine:{model}").into();
        let (sysfs, proc) = (&config.sysfs_root, &config.proc_root);
        let mut sensor = cgroup::engine_sensor(name, sysfs, proc, pid, config.cpu_model());
        // A first look, which is not booked, so that a later process with this pid is told from this one.
        drop(sensor.read());
        let mut probes = lock(&self.shared.probes);
        let scope = Scope::Engine(Arc::clone(model));
        self.shared.end(&mut probes, |probe| probe.scope == scope);
        probes.push(self.shared.probe(sensor, scope, Some(pid)));
    }

    /// An engine process ended. To be called before the child is reaped, while its last CPU time can still be read; afterwards
    /// what it used since the last tick is unknown, and so is the energy of whoever was there.
    pub fn engine_stopped(&self, model: &Arc<str>, pid: u32) {
        let mut probes = lock(&self.shared.probes);
        let scope = Scope::Engine(Arc::clone(model));
        self.shared.end(&mut probes, |probe| probe.scope == scope && probe.pid == Some(pid));
        drop(probes);
        lock(&self.shared.attribution).load_ended(model, false, MonotonicNs::now());
    }

    /// Whether a model that runs elsewhere is metered there: its attempts and work are to be reported like a local one's.
    pub fn meters_elsewhere(&self, model: &str) -> bool {
        lock(&self.shared.attribution).meters_elsewhere(model)
    }

    /// An attempt is about to be handed to the model's engine. Every attempt opened must be closed.
    pub fn attempt_opened(&self, model: &Arc<str>, attempt: AttemptId) {
        lock(&self.shared.attribution).open(model, attempt, MonotonicNs::now());
    }

    /// The engine finished a step.
    pub fn work(&self, model: &Arc<str>, span: WorkSpan) {
        lock(&self.shared.attribution).work(model, span, MonotonicNs::now());
    }

    /// The attempt ended, however it did. Best called when the engine has let go of it: a step reported after the attempt
    /// has settled is counted as dropped, and its energy goes to the others or stays unattributed.
    pub fn attempt_closed(&self, model: &Arc<str>, attempt: AttemptId) {
        lock(&self.shared.attribution).close(model, attempt, MonotonicNs::now());
    }

    /// The attempt ended before any engine heard of it. Instead of opening and closing it.
    pub fn attempt_unserved(&self, model: &Arc<str>, attempt: AttemptId) {
        lock(&self.shared.attribution).unserved(model, attempt, MonotonicNs::now());
    }

    /// Marginal energy of an attempt so far; unknown once it has settled.
    pub fn provisional(&self, attempt: AttemptId) -> EnergyFigure {
        lock(&self.shared.attribution).provisional(attempt)
    }

    /// Expected marginal energy of an answer by a local model, for routing.
    pub fn expected(&self, model: &str, tokens: Tokens) -> EnergyFigure {
        lock(&self.shared.attribution).expected(model, tokens)
    }

    /// Expected time of an answer with nobody else there, where `wattgate measure` has measured it.
    pub fn expected_time(&self, model: &str, tokens: Tokens) -> Option<ExpectedTime> {
        lock(&self.shared.attribution).expected_time(model, tokens)
    }

    /// What a joule causes beside heat, here and elsewhere.
    pub fn rates(&self) -> &Rates {
        &self.shared.rates
    }

    pub fn snapshot(&self) -> MeterSnapshot {
        let meter_cpu = Duration::from_nanos(self.shared.busy_ns.load(Ordering::Relaxed));
        let snapshot = lock(&self.shared.attribution).snapshot(MonotonicNs::now());
        MeterSnapshot { meter_cpu, ..snapshot }
    }
}

/// Why the meter cannot start.
#[derive(Debug, thiserror::Error)]
pub enum MeterError {
    #[error("energy.sensors is `{kind}`, but there is none that can be read: {why}")]
    NoSensor { kind: &'static str, why: String },
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error("cannot start the meter thread: {0}")]
    Thread(io::Error),
}

/// Locks are always taken in this order: probes, attribution.
#[derive(Debug)]
struct Shared {
    /// The sensors being read. The thread holds this lock while it reads files, so requests never wait for it.
    probes: Mutex<Vec<Probe>>,
    attribution: Mutex<Attribution>,
    profile: Arc<Profile>,
    /// Set when processes are metered by the CPU model.
    process_model: Option<Config>,
    rates: Rates,
    /// CPU time of the thread.
    busy_ns: AtomicU64,
}

struct Probe {
    device: DeviceId,
    scope: Scope,
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
        let found = match config.sensors {
            SensorChoice::None => Discovery::default(),
            _ => discovery::discover(config),
        };
        if let Some(kind) = config.sensors.kind()
            && !found.meters_here()
        {
            let why = refusals(&found, kind);
            return Err(MeterError::NoSensor { kind: kind.label(), why });
        }
        let profile = Arc::new(Profile::configured(config.profile.as_deref())?);
        tracing::info!(sensors = %found, "energy sensors chosen");
        let first = found.used.first().map(|used| used.sensor.device().source);
        let parameters = Parameters {
            cadence: Duration::from_millis(config.cadence_ms),
            weights: config.token_weights(),
            prior: config.prior_cost(),
            profile: Arc::clone(&profile),
            cpu_model: config.cpu_model(),
            source: first.unwrap_or(Source::CpuModel),
            per_engine: found.cpu_model,
        };
        let shared = Self {
            probes: Mutex::default(),
            attribution: Mutex::new(Attribution::new(parameters)),
            profile,
            // What covers the processor contains every process: counting those too would count twice.
            process_model: found.cpu_model.then(|| config.clone()),
            rates: Rates::new(&config.carbon, &config.price),
            busy_ns: AtomicU64::new(0),
        };
        lock(&shared.probes).extend(shared.first_probes(found));
        Ok(shared)
    }

    /// The sensors in use, and the gateway's own process where processes are metered; engines follow as they start.
    fn first_probes(&self, found: Discovery) -> Vec<Probe> {
        let gateway = self.process_model.as_ref().map(|config| {
            let (name, root, model) = ("gateway".into(), &config.proc_root, config.cpu_model());
            let sensor = ProcessSensor::new(name, root, process::id(), model);
            self.probe(Box::new(sensor), Scope::Overhead, None)
        });
        let used = found.used.into_iter();
        let used = used.map(|used| {
            let scope = match used.coverage {
                Coverage::Elsewhere => Scope::Elsewhere(used.models.into()),
                _ => Scope::AllEngines,
            };
            self.probe(used.sensor, scope, None)
        });
        used.chain(gateway).collect()
    }

    fn probe(&self, sensor: Box<dyn Sensor>, scope: Scope, pid: Option<u32>) -> Probe {
        let sensor = match &self.profile.calibration {
            Some(calibration) => calibration.apply(sensor),
            None => sensor,
        };
        let info = sensor.device().clone();
        let device = lock(&self.attribution).add_device(info, scope.clone(), MonotonicNs::now());
        Probe { device, scope, pid, sensor, failing: false }
    }

    /// Takes the probes out that have ended, with a last reading if there still is one to take.
    fn end(&self, probes: &mut Vec<Probe>, ended: impl Fn(&Probe) -> bool) {
        for mut probe in probes.extract_if(.., |probe| ended(probe)) {
            let reading = probe.sensor.read();
            let (mut attribution, now) = (lock(&self.attribution), MonotonicNs::now());
            match reading {
                Ok(sample) => {
                    attribution.reading(probe.device, now, sample, probe.sensor.resets());
                    attribution.retire(probe.device);
                }
                Err(_) => attribution.lost(probe.device, now),
            }
        }
    }
}

/// What the meter thread does.
struct Ticker {
    shared: Arc<Shared>,
    settlements: mpsc::Sender<Settled>,
    sleep: SuspendDetector,
    /// False once the books did not add up: that is logged once and stays visible in [`MeterSnapshot`].
    conserving: bool,
}

impl Ticker {
    fn run(&mut self, cadence: Duration, stopped: &Receiver<()>) {
        let mut next = Instant::now() + cadence;
        loop {
            let wait = next.saturating_duration_since(Instant::now());
            let last = stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout);
            self.tick();
            self.shared.busy_ns.store(thread_cpu_ns(), Ordering::Relaxed);
            if last {
                break;
            }
            next += cadence;
            // After a stall the beat starts afresh: catching up would read one instant many times.
            if next < Instant::now() {
                next = Instant::now() + cadence;
            }
        }
    }

    fn tick(&mut self) {
        let mut probes = lock(&self.shared.probes);
        let suspended = self.sleep.suspended();
        let readings: Vec<(MonotonicNs, Result<Sample, SensorError>)> = probes
            .iter_mut()
            .map(|probe| {
                let reading = probe.sensor.read();
                (MonotonicNs::now(), reading)
            })
            .collect();
        let mut attribution = lock(&self.shared.attribution);
        if let Some(missed) = suspended {
            tracing::warn!(
                ?missed,
                "the machine suspended: the energy of what ran then is unknown"
            );
            attribution.suspended(missed);
        }
        let mut readings = readings.into_iter();
        probes.retain_mut(|probe| {
            readings.next().is_none_or(|(at, reading)| probe.book(&mut attribution, at, reading))
        });
        let settled = attribution.settle(MonotonicNs::now(), self.settlements.capacity());
        let error = attribution.conservation_error();
        drop((attribution, probes));
        if error > Microjoules::ZERO && std::mem::take(&mut self.conserving) {
            tracing::error!(%error, "the energy books do not add up");
        }
        for settled in settled {
            // There is room, since nobody else sends; if the reader is gone, nobody wants to know.
            drop(self.settlements.try_send(settled));
        }
    }
}

impl Probe {
    /// MeterSnapshot a reading; false when the device has ended.
    fn book(
        &mut self,
        attribution: &mut Attribution,
        at: MonotonicNs,
        reading: Result<Sample, SensorError>,
    ) -> bool {
        let device = &self.sensor.device().name;
        match reading {
            Ok(sample) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!(%device, "the energy sensor can be read again");
                }
                attribution.reading(self.device, at, sample, self.sensor.resets());
                true
            }
            // A process that has ended is no failure. A counter that is gone may come back.
            Err(SensorError::Gone { .. }) if self.sensor.device().source == Source::CpuModel => {
                attribution.lost(self.device, at);
                false
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%device, %error, "an energy sensor cannot be read: its energy is unknown until it can");
                }
                attribution.read_failed(self.device);
                true
            }
        }
    }
}

/// CPU time of the calling thread.
fn thread_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// Nothing under these locks can be left half done in a way that a later reader would misread, so a panic elsewhere is
/// no reason to stop metering.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
