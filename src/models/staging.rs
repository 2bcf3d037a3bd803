//! A downloaded file before it is checked and moved into place.

use std::path::{Path, PathBuf};

use super::integrity::Sha256;

/// Path of the downloaded file for now, and its digest.
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
