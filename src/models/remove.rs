//! Removal of a pulled model, with everything that a pull left next to it.
//!
//! Deletes only below the model directory and only files that a pull created, never a `file:`
//! source.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::PullError;
use super::integrity::record_path;
use super::multipart::note_path;
use super::pull::lock;
use super::source::{Source, resolve};
use super::staging::with_suffix;

/// Why a model was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("{} is a file of your own, which Wattgate does not remove", .0.display())]
    Foreign(PathBuf),
    #[error(transparent)]
    Pull(#[from] PullError),
}

impl RemoveError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Foreign(_) => "remove the file by hand, and the model from the config".into(),
            Self::Pull(PullError::Busy(_)) => "wait for it to finish and try again".into(),
            Self::Pull(error) => error.hint(),
        }
    }
}

/// Returns the bytes that [`remove`] would free: the model's file and the rest of interrupted
/// pulls.
pub fn removable_bytes(source: &Source, model_dir: &Path) -> Result<u64, RemoveError> {
    parts(source, model_dir)?
        .iter()
        .try_fold(0, |sum, path| Ok(sum + size(path).map_err(|error| PullError::io(path, error))?))
}

/// Removes the files and returns the bytes freed. A process that has the model open keeps it until
/// it closes the file.
pub fn remove(source: &Source, model_dir: &Path) -> Result<u64, RemoveError> {
    let parts = parts(source, model_dir)?;
    if !model_dir.exists() {
        return Ok(0);
    }
    let _lock = lock(model_dir)?;
    let mut freed_bytes = 0;
    for path in &parts {
        let in_io = |error| PullError::io(path, error);
        freed_bytes += size(path).map_err(in_io)?;
        delete(path).map_err(in_io)?;
    }
    // Directories that were created for this model; one that holds another model is not empty and
    // stays.
    let place = resolve(source, model_dir);
    for directory in place.ancestors().skip(1).take_while(|path| *path != model_dir) {
        if fs::remove_dir(directory).is_err() {
            break;
        }
    }
    Ok(freed_bytes)
}

/// The file, its record, and the temporary files of a pull.
fn parts(source: &Source, model_dir: &Path) -> Result<[PathBuf; 6], RemoveError> {
    let file = resolve(source, model_dir);
    if matches!(source, Source::File(_)) {
        return Err(RemoveError::Foreign(file));
    }
    let left = [".partial", ".hub", ".wheel"].map(|suffix| with_suffix(&file, suffix));
    let [partial, hub, pypi] = left;
    let note = note_path(&partial);
    // The model first: an interrupted removal then leaves no model.
    Ok([file, record_path(source, model_dir), partial, note, hub, pypi])
}

/// Bytes at `path` without following links; 0 if it does not exist.
fn size(path: &Path) -> io::Result<u64> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        metadata => metadata?,
    };
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    fs::read_dir(path)?.try_fold(0, |sum, entry| Ok(sum + size(&entry?.path())?))
}

fn delete(path: &Path) -> io::Result<()> {
    let deleted = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match deleted {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        deleted => deleted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn everything_of_a_model_is_removed_and_its_neighbour_stays() {
        let dir = tempfile::tempdir().unwrap();
        let source: Source = "hf:o/r/deep/m.gguf".parse().unwrap();
        let path = resolve(&source, dir.path());
        write(&path, "GGUF");
        write(&with_suffix(&path, ".sha256"), "12345");
        write(&with_suffix(&path, ".partial"), "123");
        write(&with_suffix(&path, ".hub").join("blobs/x.part"), "12");
        write(&path.with_file_name("m.gguf.other.gguf"), "GGUF");
        assert_eq!(removable_bytes(&source, dir.path()).unwrap(), 14);
        assert_eq!(remove(&source, dir.path()).unwrap(), 14);
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(remove(&source, dir.path()).unwrap(), 0);

        let other: Source = "hf:o/r/deep/m.gguf.other.gguf".parse().unwrap();
        assert_eq!(remove(&other, dir.path()).unwrap(), 4);
        assert!(!dir.path().join("hf").exists() && dir.path().exists());
    }

    #[test]
    fn a_file_source_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        write(&path, "GGUF");
        let result = remove(&Source::File(path.clone()), dir.path());
        assert!(matches!(result, Err(RemoveError::Foreign(_))));
        assert!(path.exists());
    }

    #[test]
    fn removal_is_refused_during_a_pull() {
        let dir = tempfile::tempdir().unwrap();
        let _held = lock(dir.path()).unwrap();
        let result = remove(&"hf:o/r/m.gguf".parse().unwrap(), dir.path());
        assert!(matches!(result, Err(RemoveError::Pull(PullError::Busy(_)))));
    }
}
