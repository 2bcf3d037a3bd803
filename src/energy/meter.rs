//! The meter: one thread that reads the sensors at a fixed cadence, and the handle through which engines and requests
//! report to it.
//!
//! All effects of the energy module are here: the thread, the clock, the locks. What follows from readings and reports
//! is decided in [`super::accounts`], which is pure.

use std::io;
use std::process;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::accounts::{Accounts, Books, DeviceId, Settings, Settled};
use super::config::{Config, SensorChoice};
use super::cpu_model::ProcessSensor;
use super::device::Serves;
use super::estimate::ExpectedTime;
use super::figure::{EnergyFigure, Source};
use super::profile::{Profile, ProfileError};
use super::rapl::{self, Discovery};
use super::rates::Rates;
use super::sensor::{Sensor, SensorError};
use super::work::{Tokens, WorkSpan};
use crate::units::{AttemptId, Microjoules, MonotonicNs};

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
        let mut ticker =
            Ticker { shared: Arc::clone(&shared), settlements: sender, conserving: true };
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
        lock(&self.shared.accounts).load_started(model, MonotonicNs::now());
    }

    /// The engine has loaded its model: what it used so far was the load.
    pub fn engine_ready(&self, model: &Arc<str>) {
        lock(&self.shared.accounts).load_ended(model, true, MonotonicNs::now());
    }

    /// Expected energy of loading a local model from a file of `bytes`.
    pub fn load_energy(&self, model: &str, bytes: u64) -> EnergyFigure {
        lock(&self.shared.accounts).load_energy(model, bytes)
    }

    fn probe_engine(&self, model: &Arc<str>, pid: u32) {
        let Some(config) = &self.shared.process_model else { return };
        let name = format!("engine:{model}").into();
        let mut sensor = ProcessSensor::new(name, &config.proc_root, pid, config.cpu_model());
        // A first look, which is not booked, so that a later process with this pid is told from this one.
        drop(sensor.read());
        let mut probes = lock(&self.shared.probes);
        let serves = Serves::Engine(Arc::clone(model));
        self.shared.end(&mut probes, |probe| probe.serves == serves);
        probes.push(self.shared.probe(Box::new(sensor), serves, Some(pid)));
    }

    /// An engine process ended. Called before the child is reaped, its last CPU time can still be read; afterwards the
    /// reading of the last tick stands.
    pub fn engine_stopped(&self, model: &Arc<str>, pid: u32) {
        let mut probes = lock(&self.shared.probes);
        let serves = Serves::Engine(Arc::clone(model));
        self.shared.end(&mut probes, |probe| probe.serves == serves && probe.pid == Some(pid));
        drop(probes);
        lock(&self.shared.accounts).load_ended(model, false, MonotonicNs::now());
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
    pub fn attempt_closed(&self, model: &Arc<str>, attempt: AttemptId) {
        lock(&self.shared.accounts).close(model, attempt, MonotonicNs::now());
    }

    /// Marginal energy of an attempt so far; unknown once it has settled.
    pub fn provisional(&self, attempt: AttemptId) -> EnergyFigure {
        lock(&self.shared.accounts).provisional(attempt)
    }

    /// Expected marginal energy of an answer by a local model, for routing.
    pub fn expected(&self, model: &str, tokens: Tokens) -> EnergyFigure {
        lock(&self.shared.accounts).expected(model, tokens)
    }

    /// Expected time of an answer with nobody else there, where `wattgate measure` has measured it.
    pub fn expected_time(&self, model: &str, tokens: Tokens) -> Option<ExpectedTime> {
        lock(&self.shared.accounts).expected_time(model, tokens)
    }

    /// What a joule causes beside heat, here and elsewhere.
    pub fn rates(&self) -> &Rates {
        &self.shared.rates
    }

    pub fn books(&self) -> Books {
        lock(&self.shared.accounts).books(MonotonicNs::now())
    }
}

/// Why the meter cannot start.
#[derive(Debug, thiserror::Error)]
pub enum MeterError {
    #[error("energy.sensors is `rapl`, but no RAPL counter can be read: {0}")]
    NoRapl(Discovery),
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error("cannot start the meter thread: {0}")]
    Thread(io::Error),
}

/// Locks are always taken in this order: probes, accounts.
#[derive(Debug)]
struct Shared {
    /// The sensors being read. The thread holds this lock while it reads files, so requests never wait for it.
    probes: Mutex<Vec<Probe>>,
    accounts: Mutex<Accounts>,
    profile: Arc<Profile>,
    /// Set when processes are metered by the CPU model.
    process_model: Option<Config>,
    rates: Rates,
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
        let profile = Arc::new(Profile::configured(config.profile.as_deref())?);
        let settings = Settings {
            cadence: Duration::from_millis(config.cadence_ms),
            weights: config.token_weights(),
            prior: config.prior_cost(),
            profile: Arc::clone(&profile),
            cpu_model: config.cpu_model(),
            source: if counters.used.is_empty() { Source::CpuModel } else { Source::Rapl },
        };
        tracing::info!(sensors = %counters, cpu_model = process_model.is_some(), "energy sensors chosen");
        let shared = Self {
            probes: Mutex::default(),
            accounts: Mutex::new(Accounts::new(settings)),
            profile,
            process_model,
            rates: Rates::new(&config.carbon),
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
        let sensor = match &self.profile.calibration {
            Some(calibration) => calibration.apply(sensor),
            None => sensor,
        };
        let info = sensor.device().clone();
        let device = lock(&self.accounts).add_device(info, serves.clone(), MonotonicNs::now());
        Probe { device, serves, pid, sensor, failing: false }
    }

    /// Takes the probes out that have ended, with a last reading if there still is one to take.
    fn end(&self, probes: &mut Vec<Probe>, ended: impl Fn(&Probe) -> bool) {
        for mut probe in probes.extract_if(.., |probe| ended(probe)) {
            let reading = probe.sensor.read();
            let mut accounts = lock(&self.accounts);
            if let Ok(total) = reading {
                accounts.reading(probe.device, MonotonicNs::now(), total, probe.sensor.resets());
            }
            accounts.retire(probe.device);
        }
    }
}

/// What the meter thread does.
struct Ticker {
    shared: Arc<Shared>,
    settlements: mpsc::Sender<Settled>,
    /// False once the books did not add up: that is logged once and stays visible in [`Books`].
    conserving: bool,
}

impl Ticker {
    fn run(&mut self, cadence: Duration, stopped: &Receiver<()>) {
        let mut next = Instant::now() + cadence;
        loop {
            let wait = next.saturating_duration_since(Instant::now());
            let last = stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout);
            self.tick();
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
        let readings: Vec<(MonotonicNs, Result<Microjoules, SensorError>)> = probes
            .iter_mut()
            .map(|probe| {
                let reading = probe.sensor.read();
                (MonotonicNs::now(), reading)
            })
            .collect();
        let mut accounts = lock(&self.shared.accounts);
        let mut readings = readings.into_iter();
        probes.retain_mut(|probe| {
            readings.next().is_none_or(|(at, reading)| probe.book(&mut accounts, at, reading))
        });
        let settled = accounts.settle(MonotonicNs::now(), self.settlements.capacity());
        let error = accounts.conservation_error();
        drop((accounts, probes));
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::super::device::DeviceBook;
    use super::super::figure::Quality;
    use super::super::work::WorkRow;
    use super::*;
    use crate::units::{Joules, Watts};

    /// Polls until `poll` has something; the limit only ends a test that would hang.
    fn wait_for<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
        let limit = Instant::now() + Duration::from_mins(1);
        loop {
            if let Some(found) = poll() {
                return found;
            }
            assert!(Instant::now() < limit, "waited for {what}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn next_settled(settlements: &mut mpsc::Receiver<Settled>) -> Settled {
        wait_for("a settlement", || settlements.try_recv().ok())
    }

    /// A sysfs tree with one package whose counter the test advances.
    struct FakePackage {
        root: tempfile::TempDir,
        energy_uj: u64,
    }

    const RANGE_UJ: u64 = 262_143_328_850;

    impl FakePackage {
        fn at(energy_uj: u64) -> Self {
            let package = Self { root: tempfile::tempdir().unwrap(), energy_uj };
            fs::create_dir_all(package.zone()).unwrap();
            fs::write(package.zone().join("name"), "package-0\n").unwrap();
            fs::write(package.zone().join("max_energy_range_uj"), RANGE_UJ.to_string()).unwrap();
            package.write();
            package
        }

        fn zone(&self) -> PathBuf {
            self.root.path().join("class/powercap/intel-rapl:0")
        }

        /// Replaces the file in one step, as the kernel never shows half a number.
        fn write(&self) {
            let next = self.root.path().join("next");
            fs::write(&next, self.energy_uj.to_string()).unwrap();
            fs::rename(next, self.zone().join("energy_uj")).unwrap();
        }

        fn use_energy(&mut self, energy_uj: u64) {
            self.energy_uj = (self.energy_uj + energy_uj) % RANGE_UJ;
            self.write();
        }

        fn config(&self) -> Config {
            Config {
                sensors: SensorChoice::Rapl,
                cadence_ms: 10,
                sysfs_root: self.root.path().to_owned(),
                ..Config::default()
            }
        }
    }

    fn decoded(attempt: AttemptId, start: MonotonicNs) -> WorkSpan {
        let row = WorkRow { attempt, prefill_tokens: 0, decode_tokens: 1 };
        WorkSpan { start, end: MonotonicNs::now(), rows: vec![row] }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small and positive"
    )]
    fn microjoules(figure: EnergyFigure) -> u64 {
        (figure.joules.unwrap().0 * 1e6).round() as u64
    }

    #[test]
    fn an_attempt_is_charged_exactly_what_the_counter_gained_over_a_wrap_and_a_read_error() {
        let mut package = FakePackage::at(RANGE_UJ - 100_000);
        let (meter, mut settlements) = Meter::start(&package.config()).unwrap();
        let (handle, model, attempt) = (meter.handle(), "m".into(), AttemptId(7));
        let start = MonotonicNs::now();
        handle.attempt_opened(&model, attempt);
        package.use_energy(250_000);
        wait_for("the wrap to be read", || {
            (handle.books().devices[0].pending == Microjoules(250_000)).then_some(())
        });
        fs::remove_file(package.zone().join("energy_uj")).unwrap();
        wait_for("a read error", || (handle.books().devices[0].read_errors > 1).then_some(()));
        package.use_energy(300_000);
        handle.work(&model, decoded(attempt, start));
        handle.attempt_closed(&model, attempt);
        let settled = next_settled(&mut settlements);
        assert_eq!((settled.attempt, settled.marginal.joules), (attempt, Some(Joules(0.55))));
        assert_eq!(
            (settled.marginal.quality, settled.marginal.is_final),
            (Quality::Measured, true)
        );
        let book = handle.books().devices.remove(0);
        assert_eq!((book.resets, book.conservation_error), (0, Microjoules(0)));
        meter.stop();
        assert!(settlements.try_recv().is_err());
    }

    #[test]
    fn eight_concurrent_attempts_and_the_rest_add_up_to_the_counter() {
        let package = Mutex::new(FakePackage::at(5));
        let config = Config { idle_watts: Some(Watts(1.0)), ..lock(&package).config() };
        let (meter, mut settlements) = Meter::start(&config).unwrap();
        let model: Arc<str> = "m".into();
        thread::scope(|scope| {
            for id in 1..=8 {
                let (handle, model, package) = (meter.handle(), &model, &package);
                scope.spawn(move || {
                    handle.attempt_opened(model, AttemptId(id));
                    for _ in 0..20 {
                        let start = MonotonicNs::now();
                        lock(package).use_energy(1_000_003);
                        thread::sleep(Duration::from_millis(id));
                        handle.work(model, decoded(AttemptId(id), start));
                    }
                    handle.attempt_closed(model, AttemptId(id));
                });
            }
        });
        let settled: Vec<Settled> = (0..8).map(|_| next_settled(&mut settlements)).collect();
        let book: DeviceBook = wait_for("all energy to be booked", || {
            let book = meter.handle().books().devices.remove(0);
            (book.account.total == Microjoules(160 * 1_000_003)).then_some(book)
        });
        let account = book.account;
        let marginal: u64 = settled.iter().map(|settled| microjoules(settled.marginal)).sum();
        let amortised: u64 = settled.iter().map(|settled| microjoules(settled.amortised)).sum();
        assert_eq!(marginal, account.attributed.0);
        assert_eq!(amortised, (account.attributed + account.idle_occupied).0);
        assert_eq!(amortised + (account.unattributed + account.idle_empty).0, account.total.0);
        assert!(settled.iter().all(|settled| microjoules(settled.marginal) > 0));
    }

    /// A child that keeps one core busy.
    #[cfg(target_os = "linux")]
    #[test]
    fn an_engine_process_is_charged_its_cpu_time_to_the_last_tick() {
        let config =
            Config { sensors: SensorChoice::CpuModel, cadence_ms: 10, ..Config::default() };
        let (meter, mut settlements) = Meter::start(&config).unwrap();
        let (handle, model, attempt) = (meter.handle(), "m".into(), AttemptId(1));
        let mut child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let engine = |handle: &MeterHandle| {
            let of_model = Serves::Engine("m".into());
            handle.books().devices.into_iter().find(|book| book.serves == of_model).unwrap()
        };
        handle.engine_started(&model, child.id());
        handle.engine_ready(&model);
        handle.attempt_opened(&model, attempt);
        let used = || {
            let book = engine(&handle);
            book.account.total + book.pending
        };
        let (start, before) = (MonotonicNs::now(), used());
        let fifth_of_a_second = Microjoules(660_000);
        wait_for("some CPU time", || (used() >= before + fifth_of_a_second).then_some(()));
        handle.work(&model, decoded(attempt, start));
        handle.attempt_closed(&model, attempt);
        let settled = next_settled(&mut settlements);
        let attributed = engine(&handle).account.attributed.0;
        // Before anything can fail: a child left behind would burn a core for ever.
        child.kill().unwrap();
        assert_eq!(settled.marginal.quality, Quality::Estimated);
        assert_eq!(microjoules(settled.marginal), attributed);
        assert!(microjoules(settled.marginal) >= fifth_of_a_second.0, "{settled:?}");
        let ticks = wait_for("the child to be dead and not yet reaped", || dead_ticks(child.id()));
        handle.engine_stopped(&model, child.id());
        let per_second = rustix::param::clock_ticks_per_second();
        assert_eq!(used(), Microjoules(ticks * 3_300_000 / per_second));
        assert!(!engine(&handle).live);
        child.wait().unwrap();
    }

    /// CPU ticks of a process that has ended and was not waited for.
    fn dead_ticks(pid: u32) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
        let ticks = |field: usize| fields[field].parse::<u64>().unwrap();
        (fields[0] == "Z").then(|| ticks(11) + ticks(12))
    }

    #[test]
    fn without_counters_rapl_refuses_and_auto_falls_back_to_the_cpu_model() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sysfs/container");
        let config = |sensors| Config { sensors, sysfs_root: root.clone(), ..Config::default() };
        let refusal = Meter::start(&config(SensorChoice::Rapl)).unwrap_err().to_string();
        assert!(refusal.contains("no powercap zones"), "{refusal}");
        let (meter, _settlements) = Meter::start(&config(SensorChoice::Auto)).unwrap();
        let devices = meter.handle().books().devices;
        assert_eq!((&*devices[0].info.name, devices.len()), ("gateway", 1));
        assert_eq!(devices[0].serves, Serves::Overhead);
    }

    #[test]
    fn without_sensors_energy_is_unknown_and_not_zero() {
        let config = Config { sensors: SensorChoice::None, cadence_ms: 10, ..Config::default() };
        let (meter, mut settlements) = Meter::start(&config).unwrap();
        let (handle, model) = (meter.handle(), "m".into());
        handle.engine_started(&model, process::id());
        handle.attempt_opened(&model, AttemptId(1));
        handle.work(&model, decoded(AttemptId(1), MonotonicNs::now()));
        assert_eq!(handle.provisional(AttemptId(1)).joules, None);
        handle.attempt_closed(&model, AttemptId(1));
        assert_eq!(next_settled(&mut settlements).marginal.joules, None);
    }
}
