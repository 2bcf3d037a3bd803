//! The traffic log on a disk that misbehaves: files deleted, moved, replaced or in the way, a disk
//! that is full or read-only, permissions. Every request is answered, each record is counted as
//! what became of it, each outage is one error and one line at its end, and no line is torn.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;
use tempfile::TempDir;

use crate::rig::app::{ask, client, cloud_model, eventually, records};
use crate::rig::cli::{stderr, wattgate};
use crate::rig::mock_upstream::MockUpstream;
use crate::rig::serving::{Serving, serve};

/// A gateway with one cloud model.
struct Gateway {
    serving: Serving,
    client: reqwest::Client,
    asked: AtomicUsize,
    _upstream: MockUpstream,
}

/// What became of the records, by `/metrics`.
#[derive(Debug, PartialEq)]
struct Counts {
    written: u64,
    dropped: u64,
    errors: u64,
}

impl Gateway {
    async fn start() -> Self {
        Self::start_by(|dir| serve(dir, "127.0.0.1:0")).await
    }

    async fn start_by(command: impl Fn(&Path) -> Command) -> Self {
        let upstream = MockUpstream::start().await;
        let dir = folder(&upstream);
        let serving = Serving::start_by(command(dir.path()), dir);
        Self { serving, client: client(), asked: AtomicUsize::new(0), _upstream: upstream }
    }

    fn log_dir(&self) -> PathBuf {
        self.serving.dir.path().join("data/traffic")
    }

    /// The one file of the log.
    fn log_file(&self) -> PathBuf {
        file_in(&self.log_dir())
    }

    async fn answer(&self, count: usize) {
        for _ in 0..count {
            let url = format!("{}/v1/chat/completions", self.serving.url);
            // The same question again would be a hint, which is a line of its own.
            let question = format!("question {}", self.asked.fetch_add(1, Ordering::Relaxed));
            let reply = self.client.post(url).json(&ask("auto", &question)).send().await.unwrap();
            assert_eq!(reply.status(), 200);
        }
    }

    /// The counts, once they account for so many records.
    async fn accounted(&self, count: u64) -> Counts {
        eventually(|| async {
            let page = self.client.get(format!("{}/metrics", self.serving.url)).send();
            let page = page.await.unwrap().text().await.unwrap();
            let value = |series: &str| {
                let line = page.lines().find_map(|line| line.strip_prefix(series));
                line.map_or(0, |value| value.trim().parse().unwrap())
            };
            let counts = Counts {
                written: value("wattgate_traffic_records_total{outcome=\"written\"}"),
                dropped: value("wattgate_traffic_records_total{outcome=\"dropped\"}"),
                errors: value("wattgate_traffic_log_errors_total"),
            };
            (counts.written + counts.dropped == count).then_some(counts)
        })
        .await
    }

    /// So many outages have begun and ended, by the process log.
    async fn outages(&self, begun: usize, ended: usize) {
        let count = |text: &str| self.serving.log().matches(text).count();
        eventually(|| async { (count("the traffic log is written again") == ended).then_some(()) })
            .await;
        assert_eq!(count("cannot write the traffic log"), begun, "{}", self.serving.log());
    }
}

fn folder(upstream: &MockUpstream) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("config.toml"), cloud_model("cloud", 3.0, upstream)).unwrap();
    dir
}

fn file_in(dir: &Path) -> PathBuf {
    let mut files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.extension().is_some_and(|extension| extension == "jsonl")).unwrap()
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o777
}

/// Names that the file of the day may have, also if the test runs over midnight.
fn days() -> [String; 2] {
    let now = jiff::Timestamp::now();
    let tomorrow = now + jiff::Span::new().hours(24);
    [now, tomorrow].map(|time| format!("{}.jsonl", time.strftime("%Y-%m-%d")))
}

#[tokio::test]
async fn a_log_that_was_deleted_is_made_again() {
    let gateway = Gateway::start().await;
    gateway.answer(3).await;
    assert_eq!(gateway.accounted(3).await, Counts { written: 3, dropped: 0, errors: 0 });
    assert_eq!(records(&gateway.log_dir()).len(), 3);
    fs::remove_file(gateway.log_file()).unwrap();
    gateway.answer(2).await;
    gateway.accounted(5).await;
    assert_eq!(records(&gateway.log_dir()).len(), 2);
    fs::remove_dir_all(gateway.serving.dir.path().join("data")).unwrap();
    gateway.answer(1).await;
    assert_eq!(gateway.accounted(6).await, Counts { written: 6, dropped: 0, errors: 0 });
    assert_eq!(records(&gateway.log_dir()).len(), 1);
    assert_eq!(mode(&gateway.log_dir()), 0o700);
    assert_eq!(gateway.serving.terminate(), Some(0));
}

#[tokio::test]
async fn a_log_that_was_moved_is_begun_anew_with_the_next_record_or_sighup() {
    let gateway = Gateway::start().await;
    let rotated = gateway.serving.dir.path().join("rotated.jsonl");
    gateway.answer(2).await;
    gateway.accounted(2).await;
    let file = gateway.log_file();
    fs::rename(&file, &rotated).unwrap();
    gateway.answer(1).await;
    gateway.accounted(3).await;
    assert_eq!((records(&rotated).len(), records(&file).len()), (2, 1));

    fs::rename(&file, &rotated).unwrap();
    gateway.serving.signal("HUP");
    eventually(|| async { file.exists().then_some(()) }).await;
    let moved = gateway.serving.dir.path().join("moved");
    fs::rename(gateway.log_dir(), &moved).unwrap();
    gateway.answer(1).await;
    assert_eq!(gateway.accounted(4).await, Counts { written: 4, dropped: 0, errors: 0 });
    assert_eq!(fs::metadata(file_in(&moved)).unwrap().len(), 0);
    assert_eq!(records(&gateway.log_dir()).len(), 1);
}

#[tokio::test]
async fn what_cannot_be_written_is_dropped_counted_and_logged_once() {
    let gateway = Gateway::start().await;
    gateway.answer(1).await;
    gateway.accounted(1).await;
    let (dir, aside) = (gateway.log_dir(), gateway.serving.dir.path().join("aside"));
    fs::rename(&dir, &aside).unwrap();
    fs::write(&dir, "in the way").unwrap();
    gateway.answer(3).await;
    let counts = gateway.accounted(4).await;
    assert_eq!((counts.written, counts.dropped), (1, 3));
    assert!(counts.errors > 0);
    fs::remove_file(&dir).unwrap();
    gateway.answer(2).await;
    gateway.accounted(6).await;
    gateway.outages(1, 1).await;
    assert!(gateway.serving.log().contains("3 records were lost"), "{}", gateway.serving.log());
    assert_eq!((records(&aside).len(), records(&dir).len()), (1, 2));
}

#[tokio::test]
async fn a_link_in_place_of_the_log_is_never_written_through() {
    let gateway = Gateway::start().await;
    gateway.answer(1).await;
    gateway.accounted(1).await;
    let target = gateway.serving.dir.path().join("target");
    fs::write(&target, "kept").unwrap();
    for day in days() {
        let path = gateway.log_dir().join(day);
        let _ = fs::remove_file(&path);
        symlink(&target, path).unwrap();
    }
    gateway.answer(2).await;
    assert_eq!(gateway.accounted(3).await.dropped, 2);
    assert_eq!(fs::read_to_string(&target).unwrap(), "kept");
    assert!(gateway.serving.log().contains("symbolic link"), "{}", gateway.serving.log());
    for day in days() {
        fs::remove_file(gateway.log_dir().join(day)).unwrap();
    }
    gateway.answer(1).await;
    assert_eq!(gateway.accounted(4).await.written, 2);
    gateway.outages(1, 1).await;
}

#[tokio::test]
async fn a_log_that_is_no_file_is_refused_at_the_start_and_by_check() {
    type Make = fn(&Path);
    let upstream = MockUpstream::start().await;
    let kinds: [(&str, Make); 3] = [
        ("symbolic link", |path| symlink("/dev/null", path).unwrap()),
        ("FIFO", |path| {
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        }),
        ("folder", |path| fs::create_dir(path).unwrap()),
    ];
    for (kind, make) in kinds {
        let dir = folder(&upstream);
        fs::create_dir_all(dir.path().join("data/traffic")).unwrap();
        for day in days() {
            make(&dir.path().join("data/traffic").join(day));
        }
        let check = wattgate(dir.path(), &["check", "--json"]);
        let report: Value = serde_json::from_slice(&check.stdout).unwrap();
        let warnings = report["warnings"].to_string();
        assert!(warnings.contains("no regular file"), "{kind}: {warnings}");
        let run = wattgate(dir.path(), &["serve", "--listen", "127.0.0.1:0"]);
        assert_eq!(run.status.code(), Some(1), "{kind}");
        let said = stderr(&run);
        assert!(said.contains(kind) && said.contains("remove it"), "{kind}: {said}");
        if kind != "symbolic link" {
            let replay = wattgate(dir.path(), &["replay"]);
            let said = stderr(&replay);
            assert!(!replay.status.success() && said.contains("not a regular file"), "{said}");
        }
    }
}

#[tokio::test]
async fn the_log_is_private_and_what_was_not_is_closed_or_reported() {
    let open_umask = |dir: &Path| {
        let mut command = Command::new("sh");
        let run = "umask 0; exec \"$0\" serve --listen 127.0.0.1:0";
        command.current_dir(dir).args(["-c", run, env!("CARGO_BIN_EXE_wattgate")]);
        command
    };
    let gateway = Gateway::start_by(open_umask).await;
    let (data, dir) = (gateway.serving.dir.path().join("data"), gateway.log_dir());
    let file = gateway.log_file();
    assert_eq!((mode(&data), mode(&dir), mode(&file)), (0o700, 0o700, 0o600));

    let home = gateway.serving.kill();
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let check = wattgate(home.path(), &["check", "--json"]);
    let report: Value = serde_json::from_slice(&check.stdout).unwrap();
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("chmod 700") && warnings.contains("chmod 600"), "{warnings}");
    let serving = Serving::start_in(home);
    assert_eq!(mode(&file), 0o600);
    assert!(serving.log().contains("chmod 700"), "{}", serving.log());
}

/// As a full disk, on any machine: a limit on the size of the file.
#[tokio::test]
async fn a_file_that_may_not_grow_tears_no_line_and_ends_no_process() {
    let gateway = Gateway::start().await;
    gateway.answer(3).await;
    gateway.accounted(3).await;
    let file = gateway.log_file();
    let bytes = fs::metadata(&file).unwrap().len();
    let pid = Pid::from_raw(i32::try_from(gateway.serving.pid()).unwrap());
    let limit = |current| prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
    limit(Some(bytes * 2 - 7));
    gateway.answer(12).await;
    let counts = gateway.accounted(15).await;
    assert!(counts.dropped > 0 && counts.written > 3, "{counts:?}");
    assert_eq!(records(&file).len() as u64, counts.written);
    assert!(fs::read(&file).unwrap().ends_with(b"\n"), "the half of a record is taken back");
    limit(None);
    gateway.answer(5).await;
    let after = gateway.accounted(20).await;
    assert_eq!(after.dropped, counts.dropped);
    assert_eq!(records(&file).len() as u64, after.written, "and no record is in another's line");
    gateway.outages(1, 1).await;
    assert_eq!(gateway.serving.terminate(), Some(0));
}

/// Runs `wattgate serve` with 64 KiB of memory as the disk of its log, in a mount namespace of its
/// own.
fn on_a_small_disk(dir: &Path) -> Command {
    fs::create_dir_all(dir.join("data/traffic")).unwrap();
    let run = "mount -t tmpfs -o size=64k,mode=700 none data/traffic || exit 1
        exec \"$0\" serve --listen 127.0.0.1:0";
    let mut command = Command::new("unshare");
    command.current_dir(dir).args(["-rm", "sh", "-c", run, env!("CARGO_BIN_EXE_wattgate")]);
    command
}

/// Whether this machine lets the test mount: some containers and kernels do not.
fn can_mount() -> bool {
    let mount = ["-rm", "mount", "-t", "tmpfs", "none", "/mnt"];
    Command::new("unshare").args(mount).status().is_ok_and(|status| status.success())
}

#[tokio::test]
async fn a_full_or_read_only_disk_loses_only_what_it_could_not_take() {
    if !can_mount() {
        eprintln!("SKIPPED: this machine allows no mount in a namespace (`unshare -rm mount`)");
        return;
    }
    let gateway = Gateway::start_by(on_a_small_disk).await;
    // The gateway's own view of its files.
    let root = PathBuf::from(format!("/proc/{}/root", gateway.serving.pid()));
    let dir = root.join(gateway.log_dir().strip_prefix("/").unwrap());
    let filler = dir.join("filler");
    fs::write(&filler, vec![0; 40 << 10]).unwrap();
    gateway.answer(60).await;
    let full = gateway.accounted(60).await;
    assert!(full.written > 0 && full.dropped > 0, "{full:?}");
    assert_eq!(records(&dir).len() as u64, full.written);
    fs::remove_file(&filler).unwrap();
    gateway.answer(3).await;
    let freed = gateway.accounted(63).await;
    assert_eq!((freed.dropped, records(&dir).len() as u64), (full.dropped, freed.written));
    gateway.outages(1, 1).await;

    let remount = |how: &str| {
        let pid = gateway.serving.pid().to_string();
        let disk = gateway.log_dir();
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--user", "--preserve-credentials", "--mount", "mount"]);
        let done = command.arg("-o").arg(format!("remount,{how},size=1m")).arg(disk).status();
        assert!(done.unwrap().success(), "{how}");
    };
    // A file that is open for writing keeps its disk writable.
    let file = file_in(&dir);
    fs::rename(&file, dir.join("kept")).unwrap();
    fs::create_dir(&file).unwrap();
    gateway.answer(1).await;
    assert_eq!(gateway.accounted(64).await.dropped, full.dropped + 1);
    remount("ro");
    gateway.answer(2).await;
    assert_eq!(gateway.accounted(66).await.dropped, full.dropped + 3);
    remount("rw");
    fs::remove_dir(&file).unwrap();
    gateway.answer(2).await;
    assert_eq!(gateway.accounted(68).await.written, freed.written + 2);
    gateway.outages(2, 2).await;
    assert_eq!(records(&dir).len(), 2);
}
