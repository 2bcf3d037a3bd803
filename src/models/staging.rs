//! What a fetch leaves for the pull that asked for it: a file not yet in its place.

use std::path::{Path, PathBuf};

use super::integrity::Sha256;

/// A file just fetched: where it lies for now, and its digest.
pub(super) struct StagedFile {
    pub(super) path: PathBuf,
    pub(super) sha256: Sha256,
}

/// `path` with `suffix` appended to its file name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
