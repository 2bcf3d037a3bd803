//! Files of the log: one per UTC day, private to the user, each line whole.
//!
//! A file may be deleted, moved or replaced under the open descriptor, so each append makes sure
//! before and after the write that the path still leads to it. Links and special files are refused.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use memchr::{memchr_iter, memrchr};

use crate::files::{self, FileError, FileId};

const MS_PER_DAY: u64 = 86_400_000;

/// Why lines are not in the log.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    #[error("{}: {source}", .path.display())]
    Open { path: PathBuf, source: FileError },
    #[error("{}: {source}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}: deleted again while it was written", .0.display())]
    Deleted(PathBuf),
}

/// The file of one UTC day.
pub(super) struct Segment {
    dir: PathBuf,
    /// Days since the Unix epoch.
    day: u64,
    path: PathBuf,
    /// `None` until the first append, and after a failure.
    open: Option<OpenFile>,
}

impl Segment {
    /// Opens the file of the day; creates it and its folder if need be.
    pub(super) fn open(dir: &Path, day: u64) -> Result<Self, SegmentError> {
        let mut segment = Self { dir: dir.to_owned(), day, path: path_of(dir, day), open: None };
        segment.reachable()?;
        Ok(segment)
    }

    pub(super) fn day(&self) -> u64 {
        self.day
    }

    /// Goes on in the file of another day, opened by the next append.
    pub(super) fn turn_to(&mut self, day: u64) {
        (self.day, self.path, self.open) = (day, path_of(&self.dir, day), None);
    }

    /// Lets go of a file that has been moved or deleted; opens the one at the path.
    pub(super) fn reopen(&mut self) -> Result<(), SegmentError> {
        self.open = None;
        self.reachable().map(drop)
    }

    /// Appends whole lines; returns how many of them are in the file, also where the write failed.
    pub(super) fn append(&mut self, lines: &[u8]) -> (u64, Result<(), SegmentError>) {
        // Again if the file was deleted between the look and the write. Lines in a file that was
        // moved meanwhile are kept: a second copy would count a request twice.
        for _ in 0..2 {
            let file = match self.reachable() {
                Ok(file) => file,
                Err(error) => return (0, Err(error)),
            };
            let id = file.id;
            let (written, outcome) = file.append(lines);
            let deleted = file.has_no_name() && FileId::at(&self.path) != Some(id);
            if !deleted {
                let failed = |source| SegmentError::Write { path: self.path.clone(), source };
                return (written, outcome.map_err(failed));
            }
            self.open = None;
        }
        (0, Err(SegmentError::Deleted(self.path.clone())))
    }

    /// The file that the path leads to, opened anew if it is another one than before.
    fn reachable(&mut self) -> Result<&mut OpenFile, SegmentError> {
        let found = FileId::at(&self.path);
        let kept = self.open.take().filter(|file| found == Some(file.id));
        let file = match kept {
            Some(file) => file,
            None => OpenFile::open(&self.dir, &self.path)
                .map_err(|source| SegmentError::Open { path: self.path.clone(), source })?,
        };
        Ok(self.open.insert(file))
    }
}

/// An open file, which other processes may write to as well.
struct OpenFile {
    file: File,
    id: FileId,
}

impl OpenFile {
    fn open(dir: &Path, path: &Path) -> Result<Self, FileError> {
        files::create_private_dir(dir)?;
        let file = files::open_private_append(path)?;
        let path = path.display();
        match files::make_private(&file) {
            Ok(None) => {}
            Ok(Some(mode)) => tracing::warn!("{path} was open to other users ({mode:o}); now 600"),
            Err(error) => tracing::warn!(%error, "{path} stays open to other users"),
        }
        let id = FileId::of(&file.metadata()?);
        Ok(Self { file, id })
    }

    /// Appends whole lines; returns how many of them are in the file, also where the write failed.
    fn append(&mut self, lines: &[u8]) -> (u64, io::Result<()>) {
        let before = match self.end_torn_line() {
            Ok(bytes) => bytes,
            Err(error) => return (0, Err(error)),
        };
        let (written, outcome) = write_counted(&mut self.file, lines);
        let whole = memrchr(b'\n', &lines[..written]).map_or(0, |at| at + 1);
        if whole < written
            && let Err(error) = self.take_back(before, written, whole)
        {
            tracing::debug!(%error, "half a line stays in the traffic log until the next one");
        }
        let count = memchr_iter(b'\n', &lines[..whole]).count();
        (u64::try_from(count).unwrap_or(u64::MAX), outcome)
    }

    /// Ends a line that a kill, or a write that failed, has cut short, so that it does not swallow
    /// the next one; returns the length of the file, bytes.
    fn end_torn_line(&mut self) -> io::Result<u64> {
        let bytes = self.file.metadata()?.len();
        let mut last = [b'\n'];
        if bytes > 0 {
            self.file.read_exact_at(&mut last, bytes - 1)?;
        }
        if last == *b"\n" {
            return Ok(bytes);
        }
        self.file.write_all(b"\n")?;
        Ok(bytes + 1)
    }

    /// Cuts off what a failed write left of a line: of the `written` bytes after `before`, only the
    /// first `whole` stay.
    fn take_back(&self, before: u64, written: usize, whole: usize) -> io::Result<()> {
        if self.file.metadata()?.len() != before + written as u64 {
            return Err(io::Error::other("another process appends to the file"));
        }
        self.file.set_len(before + whole as u64)
    }

    /// No folder has the file any more: what is in it is lost.
    fn has_no_name(&self) -> bool {
        self.file.metadata().is_ok_and(|found| found.nlink() == 0)
    }
}

/// `write_all` that also returns how many bytes were written before an error.
fn write_counted(file: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// Days since the Unix epoch.
pub(super) fn day_of_ms(unix_ms: u64) -> u64 {
    unix_ms / MS_PER_DAY
}

/// The present day, in days since the Unix epoch.
pub(super) fn today() -> u64 {
    let since_epoch =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since_epoch.as_secs() / (MS_PER_DAY / 1000)
}

fn path_of(dir: &Path, day: u64) -> PathBuf {
    segment_path(dir, day * (MS_PER_DAY / 1000))
}

/// The file of requests that came in this second since the Unix epoch.
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

    /// A disk that takes a few bytes and is then full.
    struct NearlyFull(usize);

    impl Write for NearlyFull {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            if taken > 0 { Ok(taken) } else { Err(io::ErrorKind::StorageFull.into()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_failed_write_says_how_much_was_written() {
        let (written, outcome) = write_counted(&mut NearlyFull(5), b"one\ntwo\n");
        assert_eq!((written, outcome.unwrap_err().kind()), (5, io::ErrorKind::StorageFull));
        assert_eq!(write_counted(&mut NearlyFull(50), b"one\ntwo\n").0, 8);
    }

    #[test]
    fn a_line_that_was_cut_is_ended_before_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = segment_path(dir.path(), 0);
        std::fs::write(&path, "whole\ncut").unwrap();
        let mut segment = Segment::open(dir.path(), 0).unwrap();
        assert_eq!(segment.append(b"a\nb\n").0, 2);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\ncut\na\nb\n");
    }

    #[test]
    fn a_line_that_another_process_cut_is_ended_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = segment_path(dir.path(), 0);
        let mut segment = Segment::open(dir.path(), 0).unwrap();
        assert_eq!(segment.append(b"a\n").0, 1);
        std::fs::write(&path, "another's\ncut").unwrap();
        assert_eq!(segment.append(b"b\n").0, 1);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "another's\ncut\nb\n");
        std::fs::write(&path, "").unwrap();
        assert_eq!(segment.append(b"c\n").0, 1);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "c\n");
    }

    #[test]
    fn what_a_failed_write_left_of_a_line_is_taken_back_unless_others_append() {
        let dir = tempfile::tempdir().unwrap();
        let path = segment_path(dir.path(), 0);
        let segment = &mut Segment::open(dir.path(), 0).unwrap();
        let file = segment.reachable().unwrap();
        file.file.write_all(b"one\nhal").unwrap();
        file.take_back(0, 7, 4).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");
        file.file.write_all(b"hal").unwrap();
        assert!(file.take_back(0, 3, 0).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\nhal");
    }

    #[test]
    fn lines_go_to_the_file_at_the_path_whatever_became_of_the_open_one() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        let path = segment_path(&logs, 0);
        let read = || std::fs::read_to_string(&path).unwrap();
        let mut segment = Segment::open(&logs, 0).unwrap();
        assert_eq!(segment.append(b"1\n").0, 1);
        std::fs::remove_file(&path).unwrap();
        assert_eq!((segment.append(b"2\n").0, read()), (1, "2\n".to_owned()));
        std::fs::rename(&path, logs.join("rotated")).unwrap();
        assert_eq!((segment.append(b"3\n").0, read()), (1, "3\n".to_owned()));
        std::fs::remove_dir_all(&logs).unwrap();
        assert_eq!((segment.append(b"4\n").0, read()), (1, "4\n".to_owned()));
        std::fs::write(logs.join("other"), "0\n").unwrap();
        std::fs::rename(logs.join("other"), &path).unwrap();
        assert_eq!((segment.append(b"5\n").0, read()), (1, "0\n5\n".to_owned()));
        std::fs::rename(&logs, dir.path().join("moved")).unwrap();
        std::fs::write(&logs, "in the way").unwrap();
        let (written, outcome) = segment.append(b"6\n");
        assert!(written == 0 && outcome.is_err());
        std::fs::remove_file(&logs).unwrap();
        assert_eq!((segment.append(b"7\n").0, read()), (1, "7\n".to_owned()));
    }
}
