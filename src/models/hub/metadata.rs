//! What the hub's headers say of a file: identity, digest and size. Pure.

use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap};

use super::super::integrity::Sha256;

/// Names of the hub's own headers, which it sends with the redirect of a large file.
const LINKED_ETAG: &str = "x-linked-etag";
const LINKED_SIZE: &str = "x-linked-size";

/// A file as the hub describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// Without quotes; differs between versions of the file.
    pub(super) etag: String,
    pub(super) bytes: u64,
}

impl Metadata {
    /// From the headers of all responses on the way to the file, the final one last. `None` if one
    /// of both is missing.
    pub(super) fn of(status: StatusCode, responses: &[&HeaderMap]) -> Option<Self> {
        let (last, _) = responses.split_last()?;
        let first = |name: &str| responses.iter().find_map(|headers| text(headers, name));
        let etag = first(LINKED_ETAG).or_else(|| first(ETAG.as_str()))?;
        let whole = || (status == StatusCode::OK).then(|| text(last, CONTENT_LENGTH.as_str()))?;
        let bytes = content_range(last)
            .map(|range| range.total_bytes)
            .or_else(|| first(LINKED_SIZE)?.parse().ok())
            .or_else(|| whole()?.parse().ok())?;
        let etag = etag.trim_start_matches("W/").trim_matches('"');
        (!etag.is_empty()).then(|| Self { etag: etag.to_owned(), bytes })
    }

    /// The file's digest: large files are named by it, small ones by a git hash, which is shorter.
    pub(super) fn sha256(&self) -> Option<Sha256> {
        self.etag.parse().ok()
    }
}

/// A `Content-Range` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub(super) start: u64,
    pub(super) total_bytes: u64,
}

/// `bytes 5-9/10`; `None` for anything else.
pub(super) fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let range = text(headers, CONTENT_RANGE.as_str())?.strip_prefix("bytes ")?;
    let (range, total) = range.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some(ContentRange {
        start: start.trim().parse().ok()?,
        total_bytes: total.trim().parse().ok()?,
    })
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of "abc", FIPS 180-4 example.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_large_file_is_described_by_the_redirect_and_sized_by_the_range() {
        let redirect = headers(&[(LINKED_ETAG, &format!("\"{ABC}\"")), ("etag", "\"git\"")]);
        let last = headers(&[("content-range", "bytes 0-0/98362432"), ("etag", "\"other\"")]);
        let found = Metadata::of(StatusCode::PARTIAL_CONTENT, &[&redirect, &last]).unwrap();
        assert_eq!(found, Metadata { etag: ABC.to_owned(), bytes: 98_362_432 });
        assert_eq!(found.sha256().unwrap().to_string(), ABC);
    }

    #[test]
    fn a_small_file_has_a_weak_or_a_git_etag_and_no_digest() {
        let only = headers(&[("etag", "W/\"95d09f2b\""), ("content-length", "47")]);
        let found = Metadata::of(StatusCode::OK, &[&only]).unwrap();
        assert_eq!(found, Metadata { etag: "95d09f2b".to_owned(), bytes: 47 });
        assert_eq!(found.sha256(), None);
        // The length of a part is not that of the file.
        assert_eq!(Metadata::of(StatusCode::PARTIAL_CONTENT, &[&only]), None);
    }

    #[test]
    fn a_reply_without_etag_or_size_describes_nothing() {
        let sized = headers(&[("content-range", "bytes 0-0/47")]);
        assert_eq!(Metadata::of(StatusCode::PARTIAL_CONTENT, &[&sized]), None);
        assert_eq!(Metadata::of(StatusCode::OK, &[]), None);
        for range in ["bytes */47", "items 0-0/47", "bytes 0-0", "bytes 0-0/*"] {
            assert_eq!(content_range(&headers(&[("content-range", range)])), None, "{range}");
        }
    }
}
