//! A file that grows piece by piece, hashed on the way; a pull that broke off goes on after its last whole piece.
//!
//! Beside the file lies a note of how many pieces it holds. Knows nothing of where pieces come from.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::error::PullError;
use super::integrity::{Hasher, Sha256};
use super::progress::Progress;
use super::staging::with_suffix;

/// The file so far.
pub(super) struct MultipartFile {
    path: PathBuf,
    out: File,
    hasher: Hasher,
    done: Done,
    /// Bytes written, those of the present piece included.
    bytes: u64,
}

/// What is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Done {
    pieces: usize,
    bytes: u64,
}

impl MultipartFile {
    /// Goes on with what an earlier pull left at `path`, or begins anew.
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

    /// Whole pieces so far.
    pub(super) fn pieces(&self) -> usize {
        self.done.pieces
    }

    /// Appends to the present piece.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), PullError> {
        self.out.write_all(bytes).map_err(|error| PullError::io(&self.path, error))?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// The present piece is whole, and others follow.
    pub(super) fn end_piece(&mut self) -> Result<(), PullError> {
        let done = Done { pieces: self.done.pieces + 1, bytes: self.bytes };
        let note = format!("{} {}\n", done.pieces, done.bytes);
        self.out
            .sync_data()
            .and_then(|()| fs::write(note_path(&self.path), note))
            .map_err(|error| PullError::io(&self.path, error))?;
        self.done = done;
        Ok(())
    }

    /// The present piece failed: without it, and without the file if it was the first. On a full disk it would be in
    /// the way.
    pub(super) fn give_up(self) {
        // What cannot be tidied up is overwritten by the next pull.
        let _ = if self.done.pieces == 0 {
            fs::remove_file(&self.path)
        } else {
            self.out.set_len(self.done.bytes)
        };
    }

    /// The last piece is whole.
    pub(super) fn finish(self) -> Sha256 {
        // A note that stays is wrong about the next file of this name only if that is shorter; then it is ignored.
        let _ = fs::remove_file(note_path(&self.path));
        self.hasher.finish()
    }
}

impl Done {
    /// `None` when there is no note, or none of ours.
    fn read(note: &Path) -> Option<Self> {
        let text = fs::read_to_string(note).ok()?;
        let (pieces, bytes) = text.trim_end().split_once(' ')?;
        Some(Self { pieces: pieces.parse().ok()?, bytes: bytes.parse().ok()? })
    }
}

/// Hashes the first `bytes` of the file and cuts off the rest.
fn rehash(file: &mut File, bytes: u64, progress: &mut Progress) -> io::Result<Hasher> {
    progress.begin("checking what is here already", bytes);
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

/// Where the number of whole pieces of the file at `path` is kept.
pub(super) fn note_path(path: &Path) -> PathBuf {
    with_suffix(path, ".parts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_joined_and_hashed_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf.partial");
        let mut quiet = Progress::silent();
        let mut joined = MultipartFile::open(&path, &mut quiet).unwrap();
        joined.write(b"GGUF ").unwrap();
        joined.end_piece().unwrap();
        joined.write(b"half a pie").unwrap();
        // Killed here: the half of the second piece goes, the first stays.
        drop(joined);
        let mut joined = MultipartFile::open(&path, &mut quiet).unwrap();
        assert_eq!(joined.pieces(), 1);
        joined.write(b"model").unwrap();
        let sha256 = joined.finish();
        assert_eq!(fs::read(&path).unwrap(), b"GGUF model");
        let mut whole = Hasher::default();
        whole.update(b"GGUF model");
        assert_eq!(sha256, whole.finish());
        assert!(!note_path(&path).exists());
    }

    #[test]
    fn giving_up_keeps_whole_pieces_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf.partial");
        let mut quiet = Progress::silent();
        let mut joined = MultipartFile::open(&path, &mut quiet).unwrap();
        joined.write(b"GG").unwrap();
        joined.give_up();
        assert!(!path.exists());
        let mut joined = MultipartFile::open(&path, &mut quiet).unwrap();
        joined.write(b"GG").unwrap();
        joined.end_piece().unwrap();
        joined.write(b"U").unwrap();
        joined.give_up();
        assert_eq!(fs::read(&path).unwrap(), b"GG");
    }

    #[test]
    fn a_note_about_more_than_is_here_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf.partial");
        fs::write(&path, "GG").unwrap();
        for note in ["2 700\n", "rubbish", ""] {
            fs::write(note_path(&path), note).unwrap();
            let joined = MultipartFile::open(&path, &mut Progress::silent()).unwrap();
            assert_eq!((joined.pieces(), fs::metadata(&path).unwrap().len()), (0, 0), "{note}");
        }
    }
}
