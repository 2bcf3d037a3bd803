//! A fake machine: a sysfs tree whose counters and gauges move in real time, with faults.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What a file shows, of the milliseconds since the start and the milliseconds of them that were
/// busy. `None`: it cannot be read.
pub type Shown = Box<dyn Fn(u64, u64) -> Option<u64> + Send>;

/// A machine whose files are replaced every few milliseconds until it is dropped.
pub struct Machine {
    root: tempfile::TempDir,
    clock: Arc<Clock>,
    files: Arc<Mutex<Vec<(PathBuf, Shown)>>>,
    writer: Option<JoinHandle<()>>,
}

struct Clock {
    began: Instant,
    /// Milliseconds of finished work.
    busy_ms: AtomicU64,
    /// When the current work began, in milliseconds after the start; 0 for none.
    busy_since: AtomicU64,
    stop: AtomicBool,
}

impl Clock {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    fn busy_ms(&self, now: u64) -> u64 {
        let since = self.busy_since.load(Ordering::SeqCst);
        let running = if since == 0 { 0 } else { now.saturating_sub(since) };
        self.busy_ms.load(Ordering::SeqCst) + running
    }
}

impl Machine {
    /// `files` keep their text, `live` ones show what their function says.
    pub fn start(files: &[(String, String)], live: Vec<(String, Shown)>) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let clock = Arc::new(Clock {
            began: Instant::now(),
            busy_ms: AtomicU64::new(0),
            busy_since: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let live: Vec<(PathBuf, Shown)> =
            live.into_iter().map(|(name, shown)| (root.path().join(name), shown)).collect();
        for (path, _) in &live {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        let files = Arc::new(Mutex::new(live));
        show(root.path(), &files, &clock);
        let (ticking, written, base) =
            (Arc::clone(&clock), Arc::clone(&files), root.path().to_owned());
        let writer = thread::spawn(move || {
            while !ticking.stop.load(Ordering::SeqCst) {
                show(&base, &written, &ticking);
                thread::sleep(Duration::from_millis(3));
            }
        });
        Self { root, clock, files, writer: Some(writer) }
    }

    /// Brings all files up to date: on a busy test machine the writer comes late.
    pub fn flush(&self) {
        show(self.root.path(), &self.files, &self.clock);
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Makes the machine busy for a while; returns for how many milliseconds it really was. The
    /// files show all of it on return.
    pub fn busy(&self, ms: u64) -> u64 {
        self.flush();
        let start = self.clock.now_ms().max(1);
        self.clock.busy_since.store(start, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(ms));
        // No file is written in between: its counter would step back.
        let files = self.files.lock();
        let length = self.clock.now_ms() - start;
        self.clock.busy_since.store(0, Ordering::SeqCst);
        self.clock.busy_ms.fetch_add(length, Ordering::SeqCst);
        drop(files);
        self.flush();
        length
    }
}

/// Replaces each file as a whole: the kernel never shows half a number.
fn show(base: &Path, files: &Mutex<Vec<(PathBuf, Shown)>>, clock: &Clock) {
    let files = files.lock();
    let now = clock.now_ms();
    let busy = clock.busy_ms(now);
    for (path, shown) in &*files {
        match shown(now, busy) {
            Some(value) => {
                if path.is_dir() {
                    fs::remove_dir(path).unwrap();
                }
                let next = base.join("next");
                fs::write(&next, format!("{value}\n")).unwrap();
                fs::rename(next, path).unwrap();
            }
            None if path.is_dir() => {}
            // A directory cannot be read as a file.
            None => {
                drop(fs::remove_file(path));
                fs::create_dir(path).unwrap();
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.clock.stop.store(true, Ordering::SeqCst);
        if let Some(writer) = self.writer.take() {
            writer.join().unwrap();
        }
    }
}

/// The files of a RAPL zone other than its counter.
pub fn zone(id: &str, name: &str) -> Vec<(String, String)> {
    let base = format!("class/powercap/{id}");
    vec![
        (format!("{base}/name"), format!("{name}\n")),
        (format!("{base}/max_energy_range_uj"), "262143328850\n".to_owned()),
    ]
}

/// The counter of a zone that starts at `joules` and draws `idle` watts, and `more` while busy.
pub fn counter(id: &str, joules: u64, idle: u64, more: u64) -> (String, Shown) {
    let shown = move |now: u64, busy: u64| {
        Some(joules * 1_000_000 + now * idle * 1000 + busy * more * 1000)
    };
    (format!("class/powercap/{id}/energy_uj"), Box::new(shown))
}

/// The files of an AMD card other than its power.
pub fn card(n: u32) -> Vec<(String, String)> {
    let base = format!("class/hwmon/hwmon{n}");
    vec![
        (format!("{base}/name"), "amdgpu\n".to_owned()),
        (format!("{base}/fan1_input"), "900\n".to_owned()),
    ]
}

pub fn card_power(
    n: u32,
    shown: impl Fn(u64, u64) -> Option<u64> + Send + 'static,
) -> (String, Shown) {
    (format!("class/hwmon/hwmon{n}/power1_average"), Box::new(shown))
}
