//! What metering costs: CPU time of the meter's thread, by how many counters it reads how often, and with the work of five
//! hundred engines reported to it.
//!
//! Counters are files on the disk's cache, which cost what sysfs files do. Fails if eight counters each 50 ms take more than
//! 0.5 % of a core. Run by `make bench-meter`, never with the tests: a busy machine would fail it.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wattgate::energy::{
    AttemptObserver, Config, Meter, MeterHandle, SensorChoice, WorkRow, WorkSpan,
};
use wattgate::units::{AttemptId, MonotonicNs};

const LENGTH: Duration = Duration::from_secs(10);
/// Of a core, with eight counters at the default cadence.
const SHARE_MAX: f64 = 0.005;
const ENGINES: u64 = 500;
/// What one of the engines takes for a step.
const STEP: Duration = Duration::from_millis(20);

fn main() -> anyhow::Result<()> {
    for cadence_ms in [50, 10] {
        for counters in [1, 8] {
            let (meter, _tree) = meter(counters, cadence_ms)?;
            thread::sleep(LENGTH);
            let share = share(&meter.handle());
            println!("{counters} counters each {cadence_ms} ms: {:.3} % of a core", share * 100.0);
            anyhow::ensure!(cadence_ms < 50 || share <= SHARE_MAX, "more than promised");
        }
    }
    five_hundred_engines()
}

/// A meter on a machine with so many packages.
fn meter(counters: u64, cadence_ms: u64) -> anyhow::Result<(Meter, tempfile::TempDir)> {
    let tree = tempfile::tempdir()?;
    for zone in 0..counters {
        let path = tree.path().join(format!("class/powercap/intel-rapl:{zone}"));
        fs::create_dir_all(&path)?;
        fs::write(path.join("name"), format!("package-{zone}\n"))?;
        fs::write(path.join("max_energy_range_uj"), "262143328850\n")?;
        set(&path, 1_000_000)?;
    }
    let sysfs_root = tree.path().to_owned();
    let config =
        Config { sensors: SensorChoice::Rapl, cadence_ms, sysfs_root, ..Config::default() };
    let (meter, settlements) = Meter::start(&config)?;
    // Nobody waits for settlements here.
    drop(settlements);
    Ok((meter, tree))
}

fn set(zone: &Path, energy_uj: u64) -> std::io::Result<()> {
    fs::write(zone.join("next"), energy_uj.to_string())?;
    fs::rename(zone.join("next"), zone.join("energy_uj"))
}

/// CPU time of the meter's thread as a part of the time it ran.
fn share(meter: &MeterHandle) -> f64 {
    meter.snapshot().meter_cpu.as_secs_f64() / LENGTH.as_secs_f64()
}

/// Each answers one request after another, eight steps each.
fn five_hundred_engines() -> anyhow::Result<()> {
    let (meter, tree) = meter(1, 50)?;
    let (handle, zone) = (meter.handle(), tree.path().join("class/powercap/intel-rapl:0"));
    let models: Vec<Arc<str>> = (0..ENGINES).map(|n| format!("model-{n}").into()).collect();
    let (begun, cpu) = (Instant::now(), thread_cpu());
    let (mut step, mut spans) = (0, 0);
    while begun.elapsed() < LENGTH {
        let start = MonotonicNs::now();
        thread::sleep(STEP.saturating_sub(begun.elapsed().saturating_sub(STEP * step)));
        set(&zone, 1_000_000 + u64::from(step) * 2_000_000)?;
        for (model, engine) in models.iter().zip(0..) {
            let attempt = AttemptId(u64::from(step / 8) * ENGINES + engine);
            if step.is_multiple_of(8) {
                handle.attempt_opened(model, attempt);
            }
            let row = WorkRow { attempt, prefill_tokens: 0, decode_tokens: 1 };
            handle.work(model, &WorkSpan { start, end: MonotonicNs::now(), rows: vec![row] });
            if step % 8 == 7 {
                handle.attempt_closed(model, attempt);
            }
        }
        (step, spans) = (step + 1, spans + ENGINES);
    }
    let each = thread_cpu().saturating_sub(cpu) / u32::try_from(spans)?;
    println!(
        "{ENGINES} engines, {:.0} steps a second each 50 ms: {:.3} % of a core, and {each:.1?} of the reporter for a step",
        spans as f64 / LENGTH.as_secs_f64(),
        share(&handle) * 100.0
    );
    anyhow::ensure!(handle.snapshot().conservation_error().0 == 0, "the books do not add up");
    Ok(())
}

fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
