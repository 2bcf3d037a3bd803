//! Models from the Hugging Face hub, or from a server like it that `HF_ENDPOINT` names.
//!
//! Downloads resume where they stopped. A file is checked against the config's digest, or else
//! against the one by which the hub names large files.

mod account;
mod download;
mod metadata;
mod transport;

use std::fs;
use std::path::Path;

use self::download::{Downloaded, download};
use self::transport::Transport;
use super::error::{PullError, checksum_error};
use super::integrity::{Sha256, hash_file};
use super::progress::Progress;
use super::source::HubFile;
use super::staging::{StagedFile, with_suffix};

/// Downloads `file` to `target` with `.partial` appended and checks it. Blocks.
pub(super) fn fetch(
    file: &HubFile,
    expected: Option<&Sha256>,
    target: &Path,
    progress: &mut Progress,
) -> Result<StagedFile, PullError> {
    let cache = with_suffix(target, ".hub");
    let resuming = cache.exists();
    let mut result = attempt(file, expected, target, &cache, progress);
    if resuming && result.as_ref().is_err_and(is_unusable) {
        progress.note("the rest of an earlier download does not fit; starting again from nothing");
        remove(&cache);
        result = attempt(file, expected, target, &cache, progress);
    }
    // A download that broke off can be resumed by the next pull; nothing else in the cache is worth
    // keeping.
    if !matches!(
        result,
        Err(PullError::Network { .. } | PullError::DiskFull(_) | PullError::FileTooLarge(_))
    ) {
        remove(&cache);
    }
    result
}

fn remove(cache: &Path) {
    // A leftover costs only disk, and the next pull removes it.
    let _ = fs::remove_dir_all(cache);
}

/// Whether bytes of an earlier download can be the cause.
fn is_unusable(error: &PullError) -> bool {
    matches!(error, PullError::Checksum { .. } | PullError::Resume(_))
}

fn attempt(
    file: &HubFile,
    expected: Option<&Sha256>,
    target: &Path,
    cache: &Path,
    progress: &mut Progress,
) -> Result<StagedFile, PullError> {
    let in_io = |error| PullError::io(cache, error);
    let failed = |error: transport::RequestError| PullError::Network {
        what: file.to_string(),
        detail: error.to_string(),
    };
    let transport = Transport::new(account::endpoint()?, account::token()?).map_err(failed)?;
    fs::create_dir_all(cache).map_err(in_io)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(in_io)?;
    let Downloaded { path, metadata } =
        runtime.block_on(download(&transport, file, cache, progress))?;
    let sha256 = hash_file(&path, progress).map_err(in_io)?;
    if let Some(expected) = expected.or(metadata.sha256().as_ref())
        && *expected != sha256
    {
        return Err(checksum_error(&file.to_string(), expected, sha256));
    }
    let partial = with_suffix(target, ".partial");
    fs::rename(&path, &partial).map_err(in_io)?;
    Ok(StagedFile { path: partial, sha256 })
}
