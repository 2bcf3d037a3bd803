//! Files of the log: one per UTC day, each line whole or, after a kill or a failed write, ended
//! where it was cut.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const MS_PER_DAY: u64 = 86_400_000;

/// The open file of one UTC day.
pub(super) struct Segment {
    dir: PathBuf,
    /// Days since the Unix epoch.
    day: u64,
    file: File,
    /// A failed write may have left part of a line.
    torn: bool,
}

impl Segment {
    pub(super) fn open(dir: &Path, day: u64) -> io::Result<Self> {
        let path = segment_path(dir, day * (MS_PER_DAY / 1000));
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        end_torn_line(&mut file)?;
        Ok(Self { dir: dir.to_owned(), day, file, torn: false })
    }

    pub(super) fn day(&self) -> u64 {
        self.day
    }

    /// Goes on in the file of another day; stays in the present one on an error.
    pub(super) fn roll(&mut self, day: u64) -> io::Result<()> {
        *self = Self::open(&self.dir, day)?;
        Ok(())
    }

    /// Appends whole lines; returns how many of them are in the file, also where the write failed.
    pub(super) fn append(&mut self, lines: &[u8]) -> (u64, io::Result<()>) {
        let ended = if self.torn { end_torn_line(&mut self.file) } else { Ok(()) };
        let (bytes, outcome) = match ended {
            Ok(()) => write_counted(&mut self.file, lines),
            Err(error) => (0, Err(error)),
        };
        self.torn = outcome.is_err();
        let whole = lines[..bytes].split(|byte| *byte == b'\n').count() - 1;
        (u64::try_from(whole).unwrap_or(u64::MAX), outcome)
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

/// Ends a line that was cut short, so that it does not swallow the next one.
fn end_torn_line(file: &mut File) -> io::Result<()> {
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
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
}
