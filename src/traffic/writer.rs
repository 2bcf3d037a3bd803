//! Writer of the log: a thread that serialises finished records and appends them to the file of
//! their day.
//!
//! Serving hands over an owned entry and never waits for a disk. Entries that are queued together
//! leave in one write of whole lines, so a kill loses at most the queue and the line being written.
//! After a write the thread gathers for a few milliseconds, so that a busy gateway does not wake it
//! for each record.
//! When the thread cannot keep up, records are dropped and counted rather than queued without
//! bound. `written` counts what is whole in a file of the log, `dropped` the rest.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::outage::Outage;
use super::queue::{Entry, LogCounts, Queued, RecordSink, queue};
use super::segment::{Segment, SegmentError, today};

/// Most entries of one write.
const BATCH_ENTRIES: usize = 128;

/// Most bytes of lines of one write, unless a single line is longer.
const BATCH_BYTES: usize = 4 << 20;

/// Pause after a write that left the queue empty: entries that come meanwhile share one wake-up and
/// one write. A full queue lasts longer up to 200,000 entries a second.
const GATHER: Duration = Duration::from_millis(5);

/// Most memory that the buffer of lines keeps between writes.
const LINES_BYTES_KEPT: usize = 1 << 20;

/// Why the log cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Owner of the writer thread.
pub struct LogWriter {
    thread: JoinHandle<()>,
}

impl LogWriter {
    /// Opens the log, creating its folder if needed, and starts the thread.
    pub fn start(dir: &Path) -> Result<(Self, RecordSink), StartError> {
        let segment = Segment::open(dir, today())?;
        let (sink, entries) = queue(dir);
        let mut batches =
            Batches { segment, counts: sink.counts(), outage: None, lines: Vec::new(), queued: 0 };
        let thread = thread::Builder::new()
            .name("traffic-log".into())
            .spawn(move || batches.write_all(&entries))
            .map_err(StartError::Thread)?;
        Ok((Self { thread }, sink))
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
    counts: Arc<LogCounts>,
    /// Since the last write failed.
    outage: Option<Outage>,
    /// Lines of the next write, and their number.
    lines: Vec<u8>,
    queued: u64,
}

impl Batches {
    fn write_all(&mut self, entries: &Receiver<Queued>) {
        while let Ok(first) = entries.recv() {
            let mut taken = 1;
            self.take(&first);
            drop(first);
            // An entry counts against the queue until it is dropped, after it has become a line.
            while taken < BATCH_ENTRIES
                && self.lines.len() < BATCH_BYTES
                && let Ok(entry) = entries.try_recv()
            {
                self.take(&entry);
                taken += 1;
            }
            self.flush();
            if taken < BATCH_ENTRIES {
                self.counts.end_overflow();
                thread::sleep(GATHER);
            }
        }
        if let Some(outage) = self.outage.take() {
            outage.never_ended();
        }
    }

    /// Adds an entry to the next write, after what belongs to another file has been written.
    fn take(&mut self, queued: &Queued) {
        let Some(entry) = queued.entry() else { return self.reopen() };
        // Back as well as forth: a clock that was set for a while must not move the log for good.
        if entry.day() != self.segment.day() {
            self.flush();
            self.segment.turn_to(entry.day());
        }
        match write_line(entry, &mut self.lines) {
            Ok(()) => self.queued += 1,
            Err(error) => {
                self.counts.drop_records(1);
                tracing::error!(%error, "a record of the traffic log has no form in JSON");
            }
        }
    }

    fn reopen(&mut self) {
        self.flush();
        match self.segment.reopen() {
            Ok(()) => tracing::info!("reopened the traffic log"),
            Err(error) => self.fail(0, &error),
        }
    }

    /// Writes and counts the lines of the batch, and empties it.
    fn flush(&mut self) {
        let all = std::mem::take(&mut self.queued);
        if all == 0 {
            return;
        }
        let (written, outcome) = self.segment.append(&self.lines);
        self.lines.clear();
        // A burst of long prompts must not hold its memory for good.
        self.lines.shrink_to(LINES_BYTES_KEPT);
        self.counts.wrote(written);
        match outcome {
            Ok(()) => {
                if let Some(outage) = self.outage.take() {
                    outage.ended();
                }
            }
            Err(error) => self.fail(all - written, &error),
        }
    }

    fn fail(&mut self, lost: u64, error: &SegmentError) {
        self.counts.failed();
        self.counts.drop_records(lost);
        self.outage.get_or_insert_with(|| Outage::begun(error)).lose(lost);
    }
}

/// Appends the line of an entry; leaves `lines` as it was on an error.
fn write_line(entry: &Entry, lines: &mut Vec<u8>) -> serde_json::Result<()> {
    let before = lines.len();
    let written = match entry {
        Entry::Record(record) => serde_json::to_writer(&mut *lines, record),
        Entry::Annotation(annotation) => serde_json::to_writer(&mut *lines, annotation),
    };
    match written {
        Ok(()) => lines.push(b'\n'),
        Err(_) => lines.truncate(before),
    }
    written
}
