//! Verification of a model's file: read again and compared with its checksum.
//!
//! Never changes or removes a model file. The result is recorded, so that the next pull replaces a
//! bad file.

use std::io;
use std::path::Path;

use super::integrity::{Sha256, hash_file, recorded, remember};
use super::progress::Progress;
use super::source::{Source, resolve};

/// Result of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Missing,
    /// The checksum matches.
    Good {
        sha256: Sha256,
    },
    /// The checksum does not match.
    Bad {
        expected: Sha256,
        actual: Sha256,
    },
    /// There was no checksum to compare with; this one is recorded now.
    Unknown {
        sha256: Sha256,
    },
}

/// Hashes the file of `source` and compares it with `expected`, or else with the recorded digest.
///
/// Blocks while it reads.
pub fn verify(
    source: &Source,
    expected: Option<&Sha256>,
    model_dir: &Path,
    progress: &mut Progress,
) -> io::Result<Verdict> {
    let actual = match hash_file(&resolve(source, model_dir), progress) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Verdict::Missing),
        actual => actual?,
    };
    let recorded = recorded(source, model_dir);
    Ok(match (expected, recorded) {
        (Some(expected), _) => {
            remember(source, &actual, model_dir)?;
            compare(expected, actual)
        }
        // The record is the only reference, so a bad file must not replace it.
        (None, Some(recorded)) => compare(&recorded, actual),
        (None, None) => {
            remember(source, &actual, model_dir)?;
            Verdict::Unknown { sha256: actual }
        }
    })
}

fn compare(expected: &Sha256, actual: Sha256) -> Verdict {
    if *expected == actual {
        Verdict::Good { sha256: actual }
    } else {
        Verdict::Bad { expected: expected.clone(), actual }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::integrity::{FileState, file_state};
    use super::*;

    #[test]
    fn a_change_that_kept_size_and_time_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let source: Source = "hf:o/r/m.gguf".parse().unwrap();
        let path = resolve(&source, dir.path());
        let verify = |expected: Option<&Sha256>| {
            verify(&source, expected, dir.path(), &mut Progress::silent()).unwrap()
        };
        assert_eq!(verify(None), Verdict::Missing);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "GGUF 1").unwrap();
        let Verdict::Unknown { sha256: good } = verify(None) else { panic!() };
        assert_eq!(verify(None), Verdict::Good { sha256: good.clone() });

        // Same size and time, as after a disk error.
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "GGUF 2").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        let unseen = file_state(&source, Some(&good), dir.path()).unwrap();
        assert_eq!(unseen, FileState::Verified { bytes: 6 });
        for _ in 0..2 {
            let verdict = verify(None);
            assert!(matches!(&verdict, Verdict::Bad { expected, .. } if *expected == good));
        }
        assert!(matches!(verify(Some(&good)), Verdict::Bad { .. }));
        // Recorded, so that a pull fetches the file again.
        let seen = file_state(&source, Some(&good), dir.path()).unwrap();
        assert!(matches!(seen, FileState::Wrong { .. }));
    }
}
