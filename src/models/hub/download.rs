//! One file of the hub to disk: metadata first, then its bytes, resumed where an earlier download
//! stopped.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{StatusCode, Url};

use super::super::error::PullError;
use super::super::integrity::Hasher;
use super::super::progress::Progress;
use super::super::source::{DEFAULT_REVISION, HubFile};
use super::metadata::{Metadata, content_range};
use super::transport::{Reply, RequestError, Transport};

/// Attempts after the first one; each resumes where the one before stopped.
const RETRIES: u32 = 3;
/// Before the first retry; doubled before each further one.
const RETRY_DELAY: Duration = Duration::from_millis(300);
/// Longest `ETag` that becomes a file name as it is.
const NAME_LENGTH_MAX: usize = 128;

/// A file that was downloaded whole, by its size; its digest is not checked yet.
pub(super) struct Downloaded {
    pub(super) path: PathBuf,
    pub(super) metadata: Metadata,
}

/// Downloads `file` into a folder below `cache`.
pub(super) async fn download(
    transport: &Transport,
    file: &HubFile,
    cache: &Path,
    progress: &mut Progress,
) -> Result<Downloaded, PullError> {
    let failed = |error| explain(file, error);
    let url = url(transport.endpoint(), file);
    let metadata = describe(transport, &url).await.map_err(failed)?;
    let blobs = cache.join(format!("models--{}--{}/blobs", file.org, file.repo));
    fs::create_dir_all(&blobs).map_err(|error| PullError::io(&blobs, error))?;
    let path = blobs.join(format!("{}.part", file_name(&metadata.etag)));
    let mut part = Part::open(path, metadata.bytes).map_err(failed)?;
    let name = Path::new(&file.file).file_name().unwrap_or_default().display();
    progress.begin(&format!("downloading {name}"), metadata.bytes);
    progress.advance(part.bytes);
    let mut retries = 0;
    while part.bytes < part.total_bytes {
        let Err(error) = part.append(transport, &url, progress).await else { continue };
        if retries == RETRIES || !error.is_transient() {
            return Err(failed(error));
        }
        tokio::time::sleep(RETRY_DELAY * 2_u32.pow(retries)).await;
        retries += 1;
    }
    progress.end();
    Ok(Downloaded { path: part.path, metadata })
}

/// The address of `file`, with whatever is special in a URL encoded.
fn url(endpoint: &Url, file: &HubFile) -> Url {
    let mut url = endpoint.clone();
    let revision = file.revision.as_deref().unwrap_or(DEFAULT_REVISION);
    // An http(s) URL has a path, so this is never an `Err`.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend([&file.org, &file.repo, "resolve", revision]);
        segments.extend(file.file.split('/'));
    }
    url
}

/// Requests a single byte, because some servers answer `HEAD` without a size.
async fn describe(transport: &Transport, url: &Url) -> Result<Metadata, DownloadError> {
    let Reply { response, redirects } = transport.get(url, "bytes=0-0").await?;
    let headers: Vec<_> = redirects.iter().chain([response.headers()]).collect();
    Metadata::of(response.status(), &headers).ok_or(DownloadError::Undescribed)
}

/// The `ETag` if it is safe as a file name, else a digest of it.
fn file_name(etag: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if etag.len() <= NAME_LENGTH_MAX && etag.chars().all(is_safe) {
        return etag.to_owned();
    }
    let mut hasher = Hasher::default();
    hasher.update(etag.as_bytes());
    hasher.finish().to_string()
}

/// The beginning of a file on disk.
struct Part {
    path: PathBuf,
    file: File,
    bytes: u64,
    total_bytes: u64,
}

impl Part {
    fn open(path: PathBuf, total_bytes: u64) -> Result<Self, DownloadError> {
        let opened = File::options().create(true).append(true).open(&path);
        let (file, bytes) = opened
            .and_then(|file| file.metadata().map(|metadata| (file, metadata.len())))
            .map_err(|error| PullError::io(&path, error))?;
        if bytes > total_bytes {
            return Err(DownloadError::Unresumable);
        }
        Ok(Self { path, file, bytes, total_bytes })
    }

    /// Requests what is missing and appends it.
    async fn append(
        &mut self,
        transport: &Transport,
        url: &Url,
        progress: &mut Progress,
    ) -> Result<(), DownloadError> {
        let Reply { mut response, .. } =
            transport.get(url, &format!("bytes={}-", self.bytes)).await?;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = content_range(response.headers());
            if range.is_none_or(|range| {
                (range.start, range.total_bytes) != (self.bytes, self.total_bytes)
            }) {
                return Err(DownloadError::Unresumable);
            }
        } else {
            // The server ignores ranges and sends the whole file.
            self.file.set_len(0).map_err(|error| PullError::io(&self.path, error))?;
            self.bytes = 0;
        }
        while let Some(chunk) = response.chunk().await.map_err(RequestError::from)? {
            self.file.write_all(&chunk).map_err(|error| PullError::io(&self.path, error))?;
            self.bytes += chunk.len() as u64;
            progress.advance(chunk.len() as u64);
            if self.bytes > self.total_bytes {
                return Err(DownloadError::TooLong);
            }
        }
        if self.bytes < self.total_bytes { Err(DownloadError::Short) } else { Ok(()) }
    }
}

/// Failure of one attempt.
#[derive(Debug, thiserror::Error)]
enum DownloadError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("the server names neither size nor ETag of the file")]
    Undescribed,
    #[error("the connection closed before the end of the file")]
    Short,
    #[error("the server sends more bytes than it announced")]
    TooLong,
    /// What is on disk is not the beginning of the file that the server offers.
    #[error("the download cannot be resumed")]
    Unresumable,
    #[error(transparent)]
    Pull(#[from] PullError),
}

impl DownloadError {
    /// Whether another attempt can succeed.
    fn is_transient(&self) -> bool {
        match self {
            Self::Short | Self::Request(RequestError::Transport(_)) => true,
            Self::Request(RequestError::Status(status)) => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }
}

fn explain(file: &HubFile, error: DownloadError) -> PullError {
    let what = file.to_string();
    match error {
        DownloadError::Pull(error) => error,
        DownloadError::Unresumable
        | DownloadError::TooLong
        | DownloadError::Request(RequestError::Status(StatusCode::RANGE_NOT_SATISFIABLE)) => {
            PullError::Resume(what)
        }
        DownloadError::Request(RequestError::Status(StatusCode::NOT_FOUND)) => {
            PullError::NotOnHub(what)
        }
        DownloadError::Request(RequestError::Status(
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN,
        )) => PullError::Forbidden(what),
        error => PullError::Network { what, detail: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> HubFile {
        match text.parse().unwrap() {
            super::super::super::source::Source::Hub(file) => file,
            _ => panic!("{text} is a source of the hub"),
        }
    }

    #[test]
    fn an_address_is_below_the_endpoint_and_encoded() {
        let url = |endpoint: &str, text: &str| {
            url(&Url::parse(endpoint).unwrap(), &file(text)).to_string()
        };
        assert_eq!(
            url("https://huggingface.co", "hf:org/repo/deep/m.gguf@v1"),
            "https://huggingface.co/org/repo/resolve/v1/deep/m.gguf"
        );
        assert_eq!(
            url("http://127.0.0.1:81/mirror/", "hf:org/repo/a b?#.gguf"),
            "http://127.0.0.1:81/mirror/org/repo/resolve/main/a%20b%3F%23.gguf"
        );
    }

    #[test]
    fn an_etag_never_becomes_a_path() {
        assert_eq!(file_name("95d09f2b-1"), "95d09f2b-1");
        for etag in ["../../etc/passwd", "a/b", ".", &"a".repeat(300)] {
            assert_eq!(file_name(etag).len(), 64, "{etag}");
        }
    }
}
