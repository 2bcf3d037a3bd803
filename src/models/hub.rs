//! Fetches a model from the Hugging Face hub, or from a server like it named by `HF_ENDPOINT`.
//!
//! hf-hub does the talking and resumes broken downloads; this file checks what arrived. The hub's token comes from
//! `HF_TOKEN` or the hub client's own login and goes nowhere else.

use std::fs;
use std::io;
use std::path::Path;

use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Repo, RepoType};

use super::error::{PullError, checksum_error};
use super::integrity::{Sha256, hash_file};
use super::progress::Progress;
use super::source::{DEFAULT_REVISION, HubFile};
use super::staging::{StagedFile, with_suffix};

/// Tries of a broken download before it is given up; each goes on where the last one stopped.
const RETRIES: usize = 3;

/// Downloads `file` to `target` with `.partial` appended.
///
/// Checked against `expected`, or else against the digest by which the hub itself names large files.
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
        progress.note("what an earlier pull left is unusable; starting again from nothing");
        remove(&cache);
        result = attempt(file, expected, target, &cache, progress);
    }
    // A download that broke off can be resumed by the next pull; nothing else in the cache is worth keeping.
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

/// Whether the bytes from an earlier pull can be to blame.
fn is_unusable(error: &PullError) -> bool {
    matches!(error, PullError::Checksum { .. } | PullError::Size { .. } | PullError::Resume(_))
}

fn attempt(
    file: &HubFile,
    expected: Option<&Sha256>,
    target: &Path,
    cache: &Path,
    progress: &mut Progress,
) -> Result<StagedFile, PullError> {
    let in_io = |error| PullError::io(cache, error);
    fs::create_dir_all(cache).map_err(in_io)?;
    // The client compares its own paths and wants them absolute.
    let cache = cache.canonicalize().map_err(in_io)?;
    let failed = |error| explain(file, target, error);
    let mut expected_bytes = 0;
    let watch = Watch { progress, begun: false, total_bytes: &mut expected_bytes };
    let repo = repository(file, &cache).map_err(failed)?;
    let link = repo.download_with_progress(&file.file, watch).map_err(failed)?;
    let blob = link.canonicalize().map_err(in_io)?;

    let actual_bytes = fs::metadata(&blob).map_err(in_io)?.len();
    if actual_bytes != expected_bytes {
        let source_name = file.to_string();
        return Err(PullError::Size {
            source_name,
            expected: expected_bytes,
            actual: actual_bytes,
        });
    }
    // Large files are stored under their SHA-256, small ones under a git hash of another length.
    let named = blob.file_name().and_then(|name| name.to_str()?.parse::<Sha256>().ok());
    let sha256 = hash_file(&blob, progress).map_err(in_io)?;
    if let Some(expected) = expected.or(named.as_ref())
        && *expected != sha256
    {
        return Err(checksum_error(&file.to_string(), expected, sha256));
    }
    let partial = with_suffix(target, ".partial");
    fs::rename(&blob, &partial).map_err(in_io)?;
    Ok(StagedFile { path: partial, sha256 })
}

fn repository(file: &HubFile, cache: &Path) -> Result<ApiRepo, ApiError> {
    let mut builder = ApiBuilder::from_env()
        .with_cache_dir(cache.to_owned())
        .with_retries(RETRIES)
        .with_user_agent("wattgate", env!("CARGO_PKG_VERSION"));
    if let Ok(token) = std::env::var("HF_TOKEN") {
        builder = builder.with_token(Some(token));
    }
    let name = format!("{}/{}", file.org, file.repo);
    let revision = file.revision.as_deref().unwrap_or(DEFAULT_REVISION);
    Ok(builder.build()?.repo(Repo::with_revision(name, RepoType::Model, revision.to_owned())))
}

/// The client's errors carry the HTTP status in their text only.
fn explain(file: &HubFile, target: &Path, error: ApiError) -> PullError {
    let error = match error {
        ApiError::TooManyRetries(last) => *last,
        error => error,
    };
    let detail = error.to_string();
    let status = detail.rsplit_once("http status: ").and_then(|(_, code)| code.parse::<u16>().ok());
    match (error, status) {
        (ApiError::IoError(error), _) if is_of_disk(&error) => PullError::io(target, error),
        (ApiError::InvalidResume, _) | (_, Some(416)) => PullError::Resume(file.to_string()),
        (_, Some(404)) => PullError::NotOnHub(file.to_string()),
        (_, Some(401 | 403)) => PullError::Forbidden(file.to_string()),
        _ => PullError::Network { what: file.to_string(), detail },
    }
}

fn is_of_disk(error: &io::Error) -> bool {
    use io::ErrorKind::{
        FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    let of_disk = [FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull];
    of_disk.contains(&error.kind())
}

/// Passes the client's progress on. It announces a step twice: once for the file, once for each connection.
struct Watch<'a> {
    progress: &'a mut Progress,
    begun: bool,
    total_bytes: &'a mut u64,
}

impl hf_hub::api::Progress for Watch<'_> {
    fn init(&mut self, size: usize, filename: &str) {
        *self.total_bytes = size as u64;
        if !self.begun {
            let name = Path::new(filename).file_name().unwrap_or_default().display();
            self.progress.begin(&format!("downloading {name}"), size as u64);
            self.begun = true;
        }
    }

    fn update(&mut self, size: usize) {
        self.progress.advance(size as u64);
    }

    fn finish(&mut self) {
        self.progress.end();
    }
}
