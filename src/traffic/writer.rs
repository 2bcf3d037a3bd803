//! Writer of the log: a thread that serialises finished records and appends them to the file of
//! their day.
//!
//! Serving hands over an owned entry and never waits for a disk. Entries that are queued together
//! leave in one write of whole lines, so a kill loses at most the queue and the line being written.
//! When the thread cannot keep up, records are dropped and counted rather than queued without
//! bound.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use super::feedback::Annotation;
use super::record::Record;
use super::segment::{Segment, day_of_ms, today};

/// Capacity of the queue; about 4 MiB of records.
const QUEUE_RECORDS: usize = 1024;

/// Most entries of one write.
const BATCH_ENTRIES: usize = 128;

/// Most memory that the buffer of lines keeps between writes.
const LINES_BYTES_KEPT: usize = 1 << 20;

/// One line to write.
#[derive(Debug)]
pub enum Entry {
    Record(Arc<Record>),
    Annotation(Annotation),
}

impl Entry {
    fn day(&self) -> u64 {
        day_of_ms(match self {
            Self::Record(record) => record.unix_ms,
            Self::Annotation(annotation) => annotation.unix_ms(),
        })
    }

    /// Appends the line; leaves `lines` as it was on an error.
    fn write_line(&self, lines: &mut Vec<u8>) -> serde_json::Result<()> {
        let before = lines.len();
        let written = match self {
            Self::Record(record) => serde_json::to_writer(&mut *lines, record),
            Self::Annotation(annotation) => serde_json::to_writer(&mut *lines, annotation),
        };
        match written {
            Ok(()) => lines.push(b'\n'),
            Err(_) => lines.truncate(before),
        }
        written
    }
}

/// Queue of the writer thread. Cheap to clone; never blocks.
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

    /// Folder of the log.
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
        let (queue, entries) = sync_channel(QUEUE_RECORDS);
        let mut batches = Batches { segment, counts: Arc::clone(&counts), healthy: true };
        let thread = thread::Builder::new()
            .name("traffic-log".into())
            .spawn(move || batches.write_all(&entries))?;
        Ok((Self { thread }, RecordSink { dir: dir.into(), queue, counts }))
    }

    /// Blocks until every queued record is on disk. Every [`RecordSink`] must be dropped first.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the traffic log writer panicked; queued records are lost");
        }
    }
}

/// State of the writer thread.
struct Batches {
    segment: Segment,
    counts: Arc<Counts>,
    /// The last write succeeded.
    healthy: bool,
}

impl Batches {
    fn write_all(&mut self, entries: &Receiver<Entry>) {
        let mut lines = Vec::new();
        while let Ok(first) = entries.recv() {
            let more = entries.try_iter().take(BATCH_ENTRIES - 1);
            let mut queued = 0;
            for entry in std::iter::once(first).chain(more) {
                if entry.day() > self.segment.day() {
                    self.flush(&mut lines, &mut queued);
                    let opened = self.segment.roll(entry.day());
                    if let Err(error) = opened {
                        self.drop_records(1, &error);
                        continue;
                    }
                }
                match entry.write_line(&mut lines) {
                    Ok(()) => queued += 1,
                    Err(error) => self.drop_records(1, &error.into()),
                }
            }
            self.flush(&mut lines, &mut queued);
        }
    }

    /// Writes and counts the `queued` lines, and empties both.
    fn flush(&mut self, lines: &mut Vec<u8>, queued: &mut u64) {
        let all = std::mem::take(queued);
        if all == 0 {
            return;
        }
        let (written, outcome) = self.segment.append(lines);
        self.counts.written.fetch_add(written, Ordering::Relaxed);
        match outcome {
            Ok(()) => self.healthy = true,
            Err(error) => self.drop_records(all - written, &error),
        }
        lines.clear();
        // A burst of long prompts must not hold its memory for good.
        lines.shrink_to(LINES_BYTES_KEPT);
    }

    fn drop_records(&mut self, count: u64, error: &io::Error) {
        self.counts.dropped.fetch_add(count, Ordering::Relaxed);
        // Once per outage: a full disk must not fill the process log as well.
        if std::mem::take(&mut self.healthy) {
            tracing::error!(
                error = %error,
                "cannot write the traffic log; requests are served but not logged until it can be written"
            );
        }
    }
}
