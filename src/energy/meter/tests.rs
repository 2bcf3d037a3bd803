//! The meter with known counters: real thread, real clock, fake sysfs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{AttemptObserver, Meter, MeterHandle};
use crate::energy::attribution::Settled;
use crate::energy::attribution::device::{DeviceSnapshot, Scope};
use crate::energy::config::{Config, SensorChoice};
use crate::energy::figure::{EnergyFigure, Quality};
use crate::energy::sensors::library::nvml;
use crate::energy::work::{WorkRow, WorkSpan};
use crate::units::{AttemptId, Joules, Microjoules, MonotonicNs, Watts};

/// Polls until `poll` returns a value; the limit only ends a test that would hang.
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

    /// Replaces the file atomically: the kernel never exposes half a number.
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
            // Known, so that energy of partly worked intervals is all of those who worked.
            idle_watts: Some(Watts(0.0)),
            ..Config::default()
        }
    }
}

fn decoded(attempt: AttemptId, start: MonotonicNs) -> WorkSpan {
    let row = WorkRow { attempt, prefill_tokens: 0, decode_tokens: 1 };
    WorkSpan { start, end: MonotonicNs::now(), rows: vec![row] }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
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
        (handle.snapshot().devices[0].pending == Microjoules(250_000)).then_some(())
    });
    fs::remove_file(package.zone().join("energy_uj")).unwrap();
    wait_for("a read error", || (handle.snapshot().devices[0].read_errors > 1).then_some(()));
    package.use_energy(300_000);
    wait_for("all of it to be read", || {
        (handle.snapshot().devices[0].pending == Microjoules(550_000)).then_some(())
    });
    handle.work(&model, &decoded(attempt, start));
    handle.attempt_closed(&model, attempt);
    // An unchanged counter makes no interval; the microjoule belongs to the span's last moment.
    package.use_energy(1);
    let settled = next_settled(&mut settlements);
    assert_eq!((settled.attempt, settled.marginal.joules), (attempt, Some(Joules(0.550_001))));
    assert_eq!((settled.marginal.quality, settled.marginal.is_final), (Quality::Measured, true));
    let book = handle.snapshot().devices.remove(0);
    assert_eq!((book.resets, book.conservation_error), (0, Microjoules(0)));
    meter.stop();
    assert!(settlements.try_recv().is_err());
}

/// Other meters take an unreadable count for 0, and the next good reading for a wrap.
#[test]
fn an_invalid_count_is_an_error_at_every_tick_and_the_next_count_covers_it() {
    let mut package = FakePackage::at(RANGE_UJ - 100_000);
    let (meter, _settlements) = Meter::start(&package.config()).unwrap();
    let book = || meter.handle().snapshot().devices.remove(0);
    let file = package.zone().join("energy_uj");
    let long = "9".repeat(40);
    for garbage in ["", "\n", "on", "-5\n", "1.5\n", "18446744073709551616\n", "\u{0}", &long] {
        let before = book().read_errors;
        fs::write(&file, garbage).unwrap();
        wait_for("an error", || (book().read_errors > before + 1).then_some(()));
        assert_eq!(book().account.total + book().pending, Microjoules(0), "{garbage:?}");
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let before = book().read_errors;
    wait_for("an error", || (book().read_errors > before + 1).then_some(()));
    fs::remove_dir(&file).unwrap();
    package.use_energy(250_000);
    let counted = || Some(book()).filter(|book| book.account.total == Microjoules(250_000));
    let book = wait_for("all of it to be booked", counted);
    assert_eq!((book.resets, book.conservation_error), (0, Microjoules(0)));
    assert!(book.gap > Duration::ZERO, "{book:?}");
}

/// Other meters take a driver's reload for consumption.
#[test]
fn attempts_open_when_a_counter_jumps_back_are_unknown_and_later_ones_are_not() {
    let mut package = FakePackage::at(RANGE_UJ / 2);
    let (meter, mut settlements) = Meter::start(&package.config()).unwrap();
    let (handle, model) = (meter.handle(), "m".into());
    for (attempt, joules) in [(AttemptId(1), None), (AttemptId(2), Some(Joules(0.400_001)))] {
        let start = MonotonicNs::now();
        handle.attempt_opened(&model, attempt);
        if attempt == AttemptId(1) {
            package.energy_uj = 7;
            package.write();
            wait_for("the reset", || (handle.snapshot().devices[0].resets == 1).then_some(()));
        } else {
            let before = handle.snapshot().devices[0].account.total;
            package.use_energy(400_000);
            let read = || {
                let book = handle.snapshot().devices.remove(0);
                (book.account.total + book.pending > before).then_some(())
            };
            wait_for("the energy to be read", read);
        }
        handle.work(&model, &decoded(attempt, start));
        handle.attempt_closed(&model, attempt);
        // An unchanged counter makes no interval of the last moments.
        package.use_energy(1);
        let settled = next_settled(&mut settlements);
        assert_eq!((settled.attempt, settled.marginal.joules), (attempt, joules));
    }
    assert_eq!(handle.snapshot().unknown_settlements, 1);
}

#[test]
fn five_hundred_engines_with_a_million_tokens_or_none_share_the_counted_energy() {
    const ENGINES: u64 = 500;
    let mut package = FakePackage::at(5);
    let (meter, mut settlements) = Meter::start(&package.config()).unwrap();
    let handle = meter.handle();
    let models: Vec<Arc<str>> = (0..ENGINES).map(|n| format!("m{n}").into()).collect();
    let (start, none, long) = (MonotonicNs::now(), AttemptId(0), AttemptId(1));
    let attempts = || models.iter().zip((0..).map(AttemptId));
    attempts().for_each(|(model, attempt)| handle.attempt_opened(model, attempt));
    package.use_energy(30_000_000);
    wait_for("the energy to be read", || {
        let book = handle.snapshot().devices.remove(0);
        (book.account.total + book.pending == Microjoules(30_000_000)).then_some(())
    });
    let end = MonotonicNs::now();
    for (model, attempt) in attempts() {
        let prefill_tokens = if attempt == long { 1_000_000 } else { 0 };
        let decode_tokens = u32::from(attempt != none);
        let rows = vec![WorkRow { attempt, prefill_tokens, decode_tokens }];
        handle.work(model, &WorkSpan { start, end, rows });
        handle.attempt_closed(model, attempt);
    }
    package.use_energy(1);
    let settled: Vec<Settled> = (0..ENGINES).map(|_| next_settled(&mut settlements)).collect();
    let of = |wanted: AttemptId| {
        microjoules(settled.iter().find(|one| one.attempt == wanted).unwrap().marginal)
    };
    let sum: u64 = settled.iter().map(|one| microjoules(one.marginal)).sum();
    assert_eq!(sum, handle.snapshot().devices[0].account.attributed.0);
    // 0.15 a prompt token: the long prompt weighs as 150,001 of the others.
    assert!(sum >= 30_000_000 && of(none) == 0 && of(AttemptId(2)) > 0);
    assert!(of(long) > sum / 100 * 99, "{} of {sum}", of(long));
}

#[test]
fn eight_concurrent_attempts_and_unattributed_energy_add_up_to_the_counter() {
    let package = Mutex::new(FakePackage::at(5));
    let config = Config { idle_watts: Some(Watts(1.0)), ..package.lock().config() };
    let (meter, mut settlements) = Meter::start(&config).unwrap();
    let model: Arc<str> = "m".into();
    thread::scope(|scope| {
        for id in 1..=8 {
            let (handle, model, package) = (meter.handle(), &model, &package);
            scope.spawn(move || {
                handle.attempt_opened(model, AttemptId(id));
                for _ in 0..20 {
                    let start = MonotonicNs::now();
                    package.lock().use_energy(1_000_003);
                    thread::sleep(Duration::from_millis(id));
                    handle.work(model, &decoded(AttemptId(id), start));
                }
                handle.attempt_closed(model, AttemptId(id));
            });
        }
    });
    wait_for("all energy to be read", || {
        let book = meter.handle().snapshot().devices.remove(0);
        (book.account.total + book.pending == Microjoules(160 * 1_000_003)).then_some(())
    });
    // An unchanged counter makes no interval of the last moments.
    package.lock().use_energy(1);
    let settled: Vec<Settled> = (0..8).map(|_| next_settled(&mut settlements)).collect();
    let book: DeviceSnapshot = wait_for("all energy to be booked", || {
        let book = meter.handle().snapshot().devices.remove(0);
        (book.account.total == Microjoules(160 * 1_000_003 + 1)).then_some(book)
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
    let config = Config { sensors: SensorChoice::CpuModel, cadence_ms: 10, ..Config::default() };
    let (meter, mut settlements) = Meter::start(&config).unwrap();
    let (handle, model, attempt) = (meter.handle(), "m".into(), AttemptId(1));
    let mut child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let engine = |handle: &MeterHandle| {
        let of_model = Scope::Engine("m".into());
        handle.snapshot().devices.into_iter().find(|book| book.scope == of_model).unwrap()
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
    handle.work(&model, &decoded(attempt, start));
    handle.attempt_closed(&model, attempt);
    let settled = next_settled(&mut settlements);
    let attributed = engine(&handle).account.attributed.0;
    // Before any assertion: a child that is not killed would burn a core forever.
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

/// Without the check, its energy would be 0 J, measured and final.
#[cfg(target_os = "linux")]
#[test]
fn an_attempt_is_unknown_if_its_engine_could_not_be_read_and_0_j_if_no_engine_started() {
    let config = Config { sensors: SensorChoice::CpuModel, cadence_ms: 10, ..Config::default() };
    let (meter, mut settlements) = Meter::start(&config).unwrap();
    let handle = meter.handle();
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    for (model, started) in [("gone".into(), true), ("waited-for".into(), false)] {
        let start = MonotonicNs::now();
        handle.attempt_opened(&model, AttemptId(1));
        if started {
            handle.engine_started(&model, child.id());
            handle.work(&model, &decoded(AttemptId(1), start));
        }
        handle.attempt_closed(&model, AttemptId(1));
        let settled = next_settled(&mut settlements);
        let expected = (!started).then_some(Joules(0.0));
        assert_eq!((settled.marginal.joules, settled.amortised.joules), (expected, expected));
    }
}

/// CPU ticks of a process that has ended and was not reaped.
fn dead_ticks(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    let ticks = |field: usize| fields[field].parse::<u64>().unwrap();
    (fields[0] == "Z").then(|| ticks(11) + ticks(12))
}

#[test]
fn without_counters_rapl_refuses_and_auto_falls_back_to_the_cpu_model() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sysfs/container");
    let nvml = nvml::Config { enabled: false, ..nvml::Config::default() };
    let config = |sensors| Config {
        sensors,
        sysfs_root: root.clone(),
        nvml: nvml.clone(),
        ..Config::default()
    };
    let refusal = Meter::start(&config(SensorChoice::Rapl)).unwrap_err().to_string();
    assert!(refusal.contains("no powercap zones"), "{refusal}");
    let (meter, _settlements) = Meter::start(&config(SensorChoice::Auto)).unwrap();
    let devices = meter.handle().snapshot().devices;
    assert_eq!((&*devices[0].info.name, devices.len()), ("gateway", 1));
    assert_eq!(devices[0].scope, Scope::Overhead);
}

#[test]
fn without_sensors_energy_is_unknown_and_not_zero() {
    let config = Config { sensors: SensorChoice::None, cadence_ms: 10, ..Config::default() };
    let (meter, mut settlements) = Meter::start(&config).unwrap();
    let (handle, model) = (meter.handle(), "m".into());
    handle.engine_started(&model, process::id());
    handle.attempt_opened(&model, AttemptId(1));
    handle.work(&model, &decoded(AttemptId(1), MonotonicNs::now()));
    assert_eq!(handle.provisional(AttemptId(1)).joules, None);
    handle.attempt_closed(&model, AttemptId(1));
    assert_eq!(next_settled(&mut settlements).marginal.joules, None);
}

#[test]
fn two_meters_on_one_counter_each_count_all_of_it() {
    let mut package = FakePackage::at(5);
    let meters = [0, 1].map(|_| Meter::start(&package.config()).unwrap());
    let (model, attempt) = ("m".into(), AttemptId(1));
    let start = MonotonicNs::now();
    for (meter, _) in &meters {
        meter.handle().attempt_opened(&model, attempt);
    }
    package.use_energy(400_000);
    for (meter, mut settlements) in meters {
        let handle = meter.handle();
        wait_for("the energy to be read", || {
            let book = handle.snapshot().devices.remove(0);
            (book.account.total + book.pending >= Microjoules(400_000)).then_some(())
        });
        handle.work(&model, &decoded(attempt, start));
        handle.attempt_closed(&model, attempt);
        package.use_energy(1);
        let settled = microjoules(next_settled(&mut settlements).marginal);
        assert!((400_001..=400_002).contains(&settled), "{settled}");
    }
}

/// CPU time of the meter thread over one second with `zones` counters, as a share of a core.
/// `WATTGATE_OVERHEAD_S=10` runs longer and is more precise.
fn overhead(zones: u64, seconds: u64) -> f64 {
    let package = FakePackage::at(5);
    for zone in 1..zones {
        let path = package.root.path().join(format!("class/powercap/intel-rapl:{zone}"));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("name"), format!("package-{zone}\n")).unwrap();
        fs::write(path.join("max_energy_range_uj"), RANGE_UJ.to_string()).unwrap();
        fs::write(path.join("energy_uj"), format!("{}\n", zone * 10_000_000)).unwrap();
    }
    let cadence_ms = Config::default().cadence_ms;
    let (meter, _settlements) = Meter::start(&Config { cadence_ms, ..package.config() }).unwrap();
    thread::sleep(Duration::from_secs(seconds));
    let snapshot = meter.handle().snapshot();
    assert_eq!(snapshot.devices.len() as u64, zones);
    assert!(snapshot.meter_cpu > Duration::ZERO);
    snapshot.meter_cpu.as_secs_f64() / seconds as f64
}

#[test]
fn metering_costs_little_of_a_core() {
    let wanted = std::env::var("WATTGATE_OVERHEAD_S").ok().and_then(|text| text.parse().ok());
    let seconds: u64 = wanted.unwrap_or(1);
    // A short run includes the thread's start, and concurrent tests evict its caches.
    let limit = if seconds >= 10 { 0.005 } else { 0.05 };
    for zones in [1, 8] {
        let share = overhead(zones, seconds);
        println!("{zones} counters each 50 ms: {:.3} % of a core", share * 100.0);
        assert!(share < limit, "{zones} counters: {share}");
    }
}
