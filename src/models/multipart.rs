//! A file that is written in parts and hashed meanwhile. An interrupted pull resumes after the last
//! complete part.
//!
//! A note next to the file counts the complete parts. Does not know where parts come from.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::error::PullError;
use super::integrity::{Hasher, Sha256};
use super::progress::Progress;
use super::staging::with_suffix;

/// The file as far as it is written.
pub(super) struct MultipartFile {
    path: PathBuf,
    out: File,
    hasher: Hasher,
    done: Done,
    /// Bytes written, including those of the current part.
    bytes: u64,
}

/// Complete parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Done {
    parts: usize,
    bytes: u64,
}

impl MultipartFile {
    /// Resumes the file that an earlier pull left at `path`, or creates it.
    pub(super) fn open(path: &Path, progress: &mut Progress) -> Result<Self, PullError> {
        let in_io = |error| PullError::io(path, error);
        let left = Done::read(&note_path(path))
            .filter(|done| fs::metadata(path).is_ok_and(|file| file.len() >= done.bytes));
        let Some(done) = left else {
            let out = File::create(path).map_err(in_io)?;
            let (hasher, done) = (Hasher::default(), Done::default());
            return Ok(Self { path: path.to_owned(), out, hasher, done, bytes: 0 });
        };
        let mut out = File::options().read(true).write(true).open(path).map_err(in_io)?;
        let hasher = rehash(&mut out, done.bytes, progress).map_err(in_io)?;
        Ok(Self { path: path.to_owned(), out, hasher, done, bytes: done.bytes })
    }

    /// Number of complete parts.
    pub(super) fn complete_parts(&self) -> usize {
        self.done.parts
    }

    /// Appends to the current part.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), PullError> {
        self.out.write_all(bytes).map_err(|error| PullError::io(&self.path, error))?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Marks the current part as complete; another one follows.
    pub(super) fn end_part(&mut self) -> Result<(), PullError> {
        let done = Done { parts: self.done.parts + 1, bytes: self.bytes };
        let note = format!("{} {}\n", done.parts, done.bytes);
        self.out
            .sync_data()
            .and_then(|()| fs::write(note_path(&self.path), note))
            .map_err(|error| PullError::io(&self.path, error))?;
        self.done = done;
        Ok(())
    }

    /// Drops the incomplete part, and the file with it if it was the first: on a full disk it would
    /// take up space.
    pub(super) fn abandon(self) {
        // The next pull overwrites whatever cannot be removed.
        let _ = if self.done.parts == 0 {
            fs::remove_file(&self.path)
        } else {
            self.out.set_len(self.done.bytes)
        };
    }

    /// Ends the file after its last part and returns its digest.
    pub(super) fn finish(self) -> Sha256 {
        // A note that cannot be removed is ignored if the next file of this name is shorter.
        let _ = fs::remove_file(note_path(&self.path));
        self.hasher.finish()
    }
}

impl Done {
    /// `None` if there is no note or it cannot be parsed.
    fn read(note: &Path) -> Option<Self> {
        let text = fs::read_to_string(note).ok()?;
        let (parts, bytes) = text.trim_end().split_once(' ')?;
        Some(Self { parts: parts.parse().ok()?, bytes: bytes.parse().ok()? })
    }
}

/// Hashes the first `bytes` of the file and truncates it there.
fn rehash(file: &mut File, bytes: u64, progress: &mut Progress) -> io::Result<Hasher> {
    progress.begin("checking the parts on disk", bytes);
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 1 << 16];
    let mut kept = Read::by_ref(file).take(bytes);
    loop {
        let count = kept.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        progress.advance(count as u64);
    }
    progress.end();
    file.set_len(bytes)?;
    file.seek(SeekFrom::Start(bytes))?;
    Ok(hasher)
}

/// Path of the note about the file at `path`.
pub(super) fn note_path(path: &Path) -> PathBuf {
    with_suffix(path, ".parts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined_and_hashed_as_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf.partial");
        let mut quiet = Progress::silent();
        let mut file = MultipartFile::open(&path, &mut quiet).unwrap();
        file.write(b"GGUF ").unwrap();
        file.end_part().unwrap();
        file.write(b"half a pie").unwrap();
        // The process was killed here: the incomplete second part is dropped, the first stays.
        drop(file);
        let mut file = MultipartFile::open(&path, &mut quiet).unwrap();
        assert_eq!(file.complete_parts(), 1);
        file.write(b"model").unwrap();
        let sha256 = file.finish();
        assert_eq!(fs::read(&path).unwrap(), b"GGUF model");
        let mut whole = Hasher::default();
        whole.update(b"GGUF model");
        assert_eq!(sha256, whole.finish());
        assert!(!note_path(&path).exists());
    }

    #[test]
    fn an_abandoned_file_keeps_its_complete_parts_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf.partial");
        let mut quiet = Progress::silent();
        let mut file = MultipartFile::open(&path, &mut quiet).unwrap();
        file.write(b"GG").unwrap();
        file.abandon();
        assert!(!path.exists());
        let mut file = MultipartFile::open(&path, &mut quiet).unwrap();
        file.write(b"GG").unwrap();
        file.end_part().unwrap();
        file.write(b"U").unwrap();
        file.abandon();
        assert_eq!(fs::read(&path).unwrap(), b"GG");
    }

    #[test]
    fn a_note_that_does_not_fit_the_file_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf.partial");
        fs::write(&path, "GG").unwrap();
        for note in ["2 700\n", "rubbish", ""] {
            fs::write(note_path(&path), note).unwrap();
            let file = MultipartFile::open(&path, &mut Progress::silent()).unwrap();
            assert_eq!(
                (file.complete_parts(), fs::metadata(&path).unwrap().len()),
                (0, 0),
                "{note}"
            );
        }
    }
}
