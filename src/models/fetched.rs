//! What a fetch leaves for the pull that asked for it: a file not yet in its place.

use std::path::{Path, PathBuf};

use super::check::Sha256;

/// A file just fetched: where it lies for now, and its digest.
pub(super) struct Fetched {
    pub(super) path: PathBuf,
    pub(super) sha256: Sha256,
}

/// `path` with `suffix` appended to its file name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
