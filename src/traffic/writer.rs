//! Writes the log on a thread of its own: serving never waits for a disk.
//!
//! Each record is one `write` of one whole line, so a kill loses at most the line being written.
//! When the thread cannot keep up, records are dropped and counted rather than queued without
//! bound.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use super::feedback::Aside;
use super::record::Record;

/// Records that may wait for the disk; about 4 MiB of them.
const QUEUE_RECORDS: usize = 1024;

const MS_PER_DAY: u64 = 86_400_000;

/// One line to write.
#[derive(Debug)]
pub enum Entry {
    Record(Box<Record>),
    Aside(Aside),
}

impl Entry {
    fn unix_ms(&self) -> u64 {
        match self {
            Self::Record(record) => record.unix_ms,
            Self::Aside(aside) => aside.unix_ms(),
        }
    }

    fn line(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = match self {
            Self::Record(record) => serde_json::to_vec(record)?,
            Self::Aside(aside) => serde_json::to_vec(aside)?,
        };
        line.push(b'\n');
        Ok(line)
    }
}

/// Where finished records, and what is learnt of them later, go. Cheap to clone, never blocks.
#[derive(Clone)]
pub struct RecordSink {
    dir: Arc<Path>,
    queue: SyncSender<Entry>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    written: AtomicU64,
    dropped: AtomicU64,
}

impl RecordSink {
    pub fn write(&self, entry: Entry) {
        if self.queue.try_send(entry).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Where the log lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Records on disk so far.
    pub fn written(&self) -> u64 {
        self.counts.written.load(Ordering::Relaxed)
    }

    /// Records lost to a full queue or a failing disk.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }
}

/// Owner of the writer thread.
pub struct LogWriter {
    thread: JoinHandle<()>,
}

impl LogWriter {
    /// Opens the log folder, creating it if needed, and starts the thread.
    pub fn start(dir: &Path) -> io::Result<(Self, RecordSink)> {
        std::fs::create_dir_all(dir)?;
        let segment = Segment::open(dir, today())?;
        let counts = Arc::new(Counts::default());
        let (queue, records) = sync_channel(QUEUE_RECORDS);
        let thread_counts = Arc::clone(&counts);
        let thread = thread::Builder::new()
            .name("traffic-log".into())
            .spawn(move || write_all(segment, &records, &thread_counts))?;
        Ok((Self { thread }, RecordSink { dir: dir.into(), queue, counts }))
    }

    /// Waits until every queued record is on disk. Every [`RecordSink`] must be dropped first.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the traffic log writer panicked");
        }
    }
}

fn write_all(mut segment: Segment, entries: &Receiver<Entry>, counts: &Counts) {
    let mut healthy = true;
    for entry in entries {
        match segment.append(&entry) {
            Ok(()) => {
                healthy = true;
                counts.written.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                counts.dropped.fetch_add(1, Ordering::Relaxed);
                // Once per outage: a full disk must not fill the process log as well.
                if std::mem::take(&mut healthy) {
                    tracing::error!(error = %error, "the traffic log cannot be written; requests go on unlogged");
                }
            }
        }
    }
}

/// The open file of one UTC day.
struct Segment {
    dir: PathBuf,
    day: u64,
    file: File,
}

impl Segment {
    fn open(dir: &Path, day: u64) -> io::Result<Self> {
        let path = segment_path(dir, day * (MS_PER_DAY / 1000));
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        end_torn_line(&mut file)?;
        Ok(Self { dir: dir.to_owned(), day, file })
    }

    fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let day = entry.unix_ms() / MS_PER_DAY;
        if day > self.day {
            *self = Self::open(&self.dir, day)?;
        }
        self.file.write_all(&entry.line()?)
    }
}

/// A line that a kill cut short must not swallow the first line of this run.
fn end_torn_line(file: &mut File) -> io::Result<()> {
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}

fn today() -> u64 {
    let since_epoch =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since_epoch.as_secs() / (MS_PER_DAY / 1000)
}

/// The file of requests that came in this second since the Unix epoch: one for each UTC day.
pub(super) fn segment_path(dir: &Path, unix_s: u64) -> PathBuf {
    dir.join(format!("{}.jsonl", date(unix_s)))
}

/// `YYYY-MM-DD`.
fn date(unix_s: u64) -> String {
    let seconds = i64::try_from(unix_s).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| unix_s.to_string(), |time| time.strftime("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(20_779 * 86_400 + 86_399), "2026-11-22");
    }
}
