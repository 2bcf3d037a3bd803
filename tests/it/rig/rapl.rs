//! A mock RAPL package: a sysfs tree whose energy counter grows by a power that the test sets.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// A package that draws `watts` and reports its counter every 5 ms until it is dropped.
pub struct Package {
    pub watts: Arc<AtomicU64>,
    _task: JoinSet<()>,
}

impl Package {
    pub fn start(root: &Path, watts: u64) -> Self {
        let zone = root.join("class/powercap/intel-rapl:0");
        std::fs::create_dir_all(&zone).unwrap();
        std::fs::write(zone.join("name"), "package-0\n").unwrap();
        std::fs::write(zone.join("max_energy_range_uj"), "262143328850\n").unwrap();
        let report = move |energy_uj: u128| {
            std::fs::write(zone.join("next"), energy_uj.to_string()).unwrap();
            std::fs::rename(zone.join("next"), zone.join("energy_uj")).unwrap();
        };
        let mut energy_uj = 1;
        report(energy_uj);
        let watts = Arc::new(AtomicU64::new(watts));
        let power = Arc::clone(&watts);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut before = Instant::now();
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let now = Instant::now();
                let watts = u128::from(power.load(Ordering::Relaxed));
                energy_uj += (now - before).as_micros() * watts;
                before = now;
                report(energy_uj);
            }
        });
        Self { watts, _task: task }
    }
}
