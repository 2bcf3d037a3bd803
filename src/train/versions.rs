//! Versions of a router on disk: `NAME` is a link to the serving one, `NAME.versions/NNNN`.
//!
//! Changes links and copies folders; every switch is one rename, so that a reader sees either the
//! old router or the new one. A router that cannot be used never becomes a version.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::routing::drift::{Reference, ReferenceError};
use crate::routing::{AdequacyError, AdequacyModel, Confidence, ConfidenceError};

/// Why a promotion or a rollback failed.
#[derive(Debug, Error)]
pub enum VersionsError {
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("not promoted: {0}")]
    Router(#[from] AdequacyError),
    #[error("not promoted: {0}")]
    Confidence(#[from] ConfidenceError),
    #[error("not promoted: {0}")]
    Reference(#[from] ReferenceError),
    #[error("{} is already the serving router", .0.display())]
    Same(PathBuf),
    #[error("there is no version before {0}: nothing to roll back to")]
    NothingBefore(u32),
    #[error("{} has no versions: nothing was promoted to it", .0.display())]
    NoVersions(PathBuf),
}

/// The versions of the router at one path.
#[derive(Debug)]
pub struct Versions {
    router: PathBuf,
    /// Folder of the versions.
    dir: PathBuf,
}

impl Versions {
    /// Versions of the router at this path, as configured.
    pub fn of(router: &Path) -> Self {
        let mut dir = router.as_os_str().to_owned();
        dir.push(".versions");
        Self { router: router.to_owned(), dir: dir.into() }
    }

    /// Numbers of the versions, oldest first.
    pub fn all(&self) -> Result<Vec<u32>, VersionsError> {
        let entries = match self.dir.read_dir() {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed(&self.dir)(source)),
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed(&self.dir))?.file_name();
            // An incomplete copy has another name.
            numbers.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The serving version; `None` if the router is not a link to a version.
    pub fn current(&self) -> Option<u32> {
        let target = fs::read_link(&self.router).ok()?;
        let within = target.parent()?.file_name() == self.dir.file_name();
        target.file_name()?.to_str()?.parse().ok().filter(|_| within)
    }

    /// Folder of a version.
    pub fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{number:04}"))
    }

    /// Makes the router in `candidate` a version and switches to it. A router in a plain folder
    /// becomes the first version.
    pub fn promote(&self, candidate: &Path) -> Result<u32, VersionsError> {
        check(candidate)?;
        let real = |path: &Path| fs::canonicalize(path).ok();
        if real(candidate).is_some() && real(candidate) == real(&self.router) {
            return Err(VersionsError::Same(candidate.to_owned()));
        }
        fs::create_dir_all(&self.dir).map_err(failed(&self.dir))?;
        if self.router.is_dir() && !self.router.is_symlink() {
            let kept = self.next()?;
            self.copy(&self.router, kept)?;
        }
        let number = self.next()?;
        self.copy(candidate, number)?;
        self.serve(number)?;
        Ok(number)
    }

    /// Switches to the version before the present one.
    pub fn roll_back(&self) -> Result<u32, VersionsError> {
        let current =
            self.current().ok_or_else(|| VersionsError::NoVersions(self.router.clone()))?;
        let before = self.all()?.into_iter().rfind(|&number| number < current);
        let number = before.ok_or(VersionsError::NothingBefore(current))?;
        check(&self.path(number))?;
        self.serve(number)?;
        Ok(number)
    }

    fn next(&self) -> Result<u32, VersionsError> {
        Ok(self.all()?.last().map_or(1, |last| last + 1))
    }

    /// Copies the files of `from`, under a temporary name until all are there.
    fn copy(&self, from: &Path, number: u32) -> Result<(), VersionsError> {
        let half = self.dir.join(format!("{number:04}.copying"));
        match fs::remove_dir_all(&half) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&half)(error));
            }
            _ => {}
        }
        fs::create_dir_all(&half).map_err(failed(&half))?;
        for entry in from.read_dir().map_err(failed(from))? {
            let entry = entry.map_err(failed(from))?;
            let path = entry.path();
            if path.is_file() {
                fs::copy(&path, half.join(entry.file_name())).map_err(failed(&path))?;
            }
        }
        let whole = self.path(number);
        fs::rename(&half, &whole).map_err(failed(&whole))
    }

    /// Switches the router to a version.
    fn serve(&self, number: u32) -> Result<(), VersionsError> {
        let mut fresh = self.router.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&fresh)(error));
            }
            _ => {}
        }
        // Relative, so that the whole folder can be moved.
        let dir = self.dir.file_name().unwrap_or_default();
        symlink(Path::new(dir).join(format!("{number:04}")), &fresh).map_err(failed(&fresh))?;
        if self.router.is_dir() && !self.router.is_symlink() {
            // A link cannot replace a folder in one step. Its copy is a version already, so an
            // interruption loses nothing.
            fs::remove_dir_all(&self.router).map_err(failed(&self.router))?;
        }
        fs::rename(&fresh, &self.router).map_err(failed(&self.router))
    }
}

/// Checks that a gateway could serve with all files in the folder.
fn check(dir: &Path) -> Result<(), VersionsError> {
    AdequacyModel::load(dir)?;
    Confidence::load(dir)?;
    Reference::load(dir)?;
    Ok(())
}

fn failed(path: &Path) -> impl Fn(io::Error) -> VersionsError + use<> {
    let path = path.to_owned();
    move |source| VersionsError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A router identifiable by its slope.
    fn router(dir: &Path, slope: f64) {
        let mut model = AdequacyModel::built_in().unwrap();
        model.slope = slope;
        model.save(dir).unwrap();
    }

    fn slope(dir: &Path) -> String {
        format!("{:.1}", AdequacyModel::load(dir).unwrap().slope)
    }

    #[test]
    fn candidates_are_promoted_kept_and_rolled_back() {
        let dir = tempfile::tempdir().unwrap();
        let (live, candidate) = (dir.path().join("live"), dir.path().join("candidate"));
        let versions = Versions::of(&live);
        router(&candidate, 2.0);
        assert_eq!((versions.promote(&candidate).unwrap(), versions.current()), (1, Some(1)));
        router(&candidate, 3.0);
        assert_eq!(versions.promote(&candidate).unwrap(), 2);
        assert_eq!(slope(&live), "3.0");
        assert_eq!((versions.roll_back().unwrap(), slope(&live).as_str()), (1, "2.0"));
        assert!(matches!(versions.roll_back(), Err(VersionsError::NothingBefore(1))));
        // The next version has a new number, and the one that was rolled back is kept.
        router(&candidate, 4.0);
        assert_eq!(versions.promote(&candidate).unwrap(), 3);
        assert_eq!(versions.all().unwrap(), [1, 2, 3]);
        assert!(matches!(versions.promote(&live), Err(VersionsError::Same(_))));
    }

    #[test]
    fn a_plain_folder_becomes_the_first_version() {
        let dir = tempfile::tempdir().unwrap();
        let (live, candidate) = (dir.path().join("live"), dir.path().join("candidate"));
        router(&live, 2.0);
        router(&candidate, 3.0);
        let versions = Versions::of(&live);
        assert_eq!((versions.current(), versions.promote(&candidate).unwrap()), (None, 2));
        assert_eq!(slope(&live), "3.0");
        assert_eq!((versions.roll_back().unwrap(), slope(&live).as_str()), (1, "2.0"));
    }

    #[test]
    fn a_damaged_candidate_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (live, candidate) = (dir.path().join("live"), dir.path().join("candidate"));
        router(&live, 2.0);
        let versions = Versions::of(&live);
        for file in ["model.bin", "cascade.json", "reference.json"] {
            router(&candidate, 3.0);
            fs::write(candidate.join(file), b"WGROUTER and nonsense").unwrap();
            let refused = versions.promote(&candidate).unwrap_err().to_string();
            assert!(refused.contains("not promoted") && refused.contains(file), "{refused}");
            fs::remove_file(candidate.join(file)).unwrap();
        }
        assert!(matches!(versions.roll_back(), Err(VersionsError::NoVersions(_))));
        assert_eq!((slope(&live).as_str(), versions.all().unwrap().len()), ("2.0", 0));
    }
}
