//! Queue of the log's writer, bounded in number and in bytes, and what became of its records.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::feedback::Annotation;
use super::record::Record;
use super::segment::day_of_ms;

/// Most entries in the queue; about 4 MiB of records without prompts.
const QUEUE_RECORDS: usize = 1024;

/// Most bytes of entries in the queue, unless a single one is larger. Reached only by long prompts.
const QUEUE_BYTES: usize = 64 << 20;

/// One line to write.
#[derive(Debug)]
pub enum Entry {
    Record(Arc<Record>),
    Annotation(Annotation),
}

impl Entry {
    /// The day, since the Unix epoch, in whose file it belongs.
    pub(super) fn day(&self) -> u64 {
        day_of_ms(match self {
            Self::Record(record) => record.unix_ms,
            Self::Annotation(annotation) => annotation.unix_ms(),
        })
    }

    /// Memory that it holds, about.
    fn bytes(&self) -> usize {
        match self {
            Self::Record(record) => record.memory_bytes(),
            Self::Annotation(annotation) => annotation.memory_bytes(),
        }
    }
}

/// An entry, or without one the order to reopen the file. Holds its share of the queue's bytes
/// until it is dropped.
pub(super) struct Queued {
    entry: Option<Entry>,
    bytes: usize,
    counts: Arc<LogCounts>,
}

impl Queued {
    pub(super) fn entry(&self) -> Option<&Entry> {
        self.entry.as_ref()
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.counts.queued_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What became of the records.
#[derive(Default)]
pub(super) struct LogCounts {
    queued_bytes: AtomicUsize,
    written: AtomicU64,
    dropped: AtomicU64,
    errors: AtomicU64,
    /// Records that found the queue full since it was last emptied.
    overflowed: AtomicU64,
}

impl LogCounts {
    pub(super) fn wrote(&self, records: u64) {
        self.written.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn drop_records(&self, records: u64) {
        self.dropped.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    fn overflow(&self) {
        self.drop_records(1);
        if self.overflowed.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!(
                "the traffic log is slower than its records come; the queue is full, and they are dropped"
            );
        }
    }

    /// The queue is empty again.
    pub(super) fn end_overflow(&self) {
        let lost = self.overflowed.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::info!(lost, "the traffic log has caught up; {lost} records were lost");
        }
    }
}

/// Sending end of the queue. Cheap to clone; never blocks.
#[derive(Clone)]
pub struct RecordSink {
    dir: Arc<Path>,
    queue: SyncSender<Queued>,
    counts: Arc<LogCounts>,
}

/// The queue for a log in `dir`, and its receiving end.
pub(super) fn queue(dir: &Path) -> (RecordSink, Receiver<Queued>) {
    let (queue, entries) = sync_channel(QUEUE_RECORDS);
    (RecordSink { dir: dir.into(), queue, counts: Arc::default() }, entries)
}

impl RecordSink {
    /// Queues an entry; drops and counts it if the queue is full.
    pub fn write(&self, entry: Entry) {
        let bytes = entry.bytes();
        let before = self.counts.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let queued = Queued { entry: Some(entry), bytes, counts: Arc::clone(&self.counts) };
        let is_full = before > 0 && before.saturating_add(bytes) > QUEUE_BYTES;
        if is_full || self.queue.try_send(queued).is_err() {
            self.counts.overflow();
        }
    }

    /// Has the file opened again, after it was moved away. A full queue needs no order: the writer
    /// finds out by itself before its next write.
    pub fn reopen(&self) {
        let order = Queued { entry: None, bytes: 0, counts: Arc::clone(&self.counts) };
        let _ = self.queue.try_send(order);
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

    /// Failed writes and failed tries to open the file.
    pub fn errors(&self) -> u64 {
        self.counts.errors.load(Ordering::Relaxed)
    }

    pub(super) fn counts(&self) -> Arc<LogCounts> {
        Arc::clone(&self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::feedback::{FEEDBACK_VERSION, Feedback, VerdictSource};

    fn entry(bytes: usize) -> Entry {
        Entry::Annotation(Annotation::Feedback(Feedback {
            version: FEEDBACK_VERSION,
            unix_ms: 0,
            request_id: "r".into(),
            source: VerdictSource::Client("c".into()),
            score: 1.0,
            comment: Some("x".repeat(bytes)),
        }))
    }

    #[test]
    fn the_queue_is_bounded_in_number() {
        let (sink, entries) = queue(Path::new("x"));
        for _ in 0..QUEUE_RECORDS + 5 {
            sink.write(entry(1));
        }
        assert_eq!((entries.try_iter().count(), sink.dropped()), (QUEUE_RECORDS, 5));
    }

    #[test]
    fn the_queue_is_bounded_in_bytes_and_takes_a_single_larger_entry() {
        let (sink, entries) = queue(Path::new("x"));
        for _ in 0..10 {
            sink.write(entry(QUEUE_BYTES / 4));
        }
        assert_eq!((entries.try_iter().count(), sink.dropped()), (3, 7));
        sink.write(entry(2 * QUEUE_BYTES));
        sink.write(entry(1));
        assert_eq!((entries.try_iter().count(), sink.dropped()), (1, 8));
        sink.write(entry(1));
        assert_eq!(entries.try_iter().count(), 1, "what was taken frees its bytes");
    }
}
