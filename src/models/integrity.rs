//! Integrity of model files on disk, without reading gigabytes at every start.
//!
//! A file is hashed once. `FILE.sha256` next to it records the digest in the format of `sha256sum`,
//! with the size and modification time of the file at that moment. Never changes or removes a model
//! file.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::progress::Progress;
use super::source::{Source, resolve};
use crate::files;

/// A SHA-256 digest, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(String);

/// The text is not a SHA-256 digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 checksum has 64 hexadecimal digits, as `sha256sum FILE` prints them")]
pub struct NotSha256;

/// State of a model's file as far as it is known without reading the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileState {
    /// Not on this machine.
    Missing,
    /// Present and hashed since it was last written. It matches the checksum of the config, if
    /// there is one.
    Verified { bytes: u64 },
    /// Present, not hashed since it was last written; `pull` hashes it.
    Unverified { bytes: u64 },
    /// Present with a checksum other than the one in the config.
    Wrong { actual: Sha256 },
}

/// Returns the state of the file of `source` under `model_dir`. `expected` is the checksum in the
/// config, if it has one.
pub fn file_state(
    source: &Source,
    expected: Option<&Sha256>,
    model_dir: &Path,
) -> io::Result<FileState> {
    let metadata = match fs::metadata(resolve(source, model_dir)) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Err(io::ErrorKind::IsADirectory.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(FileState::Missing),
        Err(error) => return Err(error),
    };
    let stamp = Stamp::of(&metadata);
    let known =
        Record::read(&record_path(source, model_dir)).filter(|record| record.stamp == stamp);
    Ok(match known {
        None => FileState::Unverified { bytes: stamp.bytes },
        Some(record) if expected.is_some_and(|expected| *expected != record.sha256) => {
            FileState::Wrong { actual: record.sha256 }
        }
        Some(_) => FileState::Verified { bytes: stamp.bytes },
    })
}

/// Returns the digest of the file at `path`. Reads all of it.
pub(super) fn hash_file(path: &Path, progress: &mut Progress) -> io::Result<Sha256> {
    let mut file = File::open(path)?;
    let label = path.file_name().unwrap_or_default().display();
    progress.begin(&format!("checking {label}"), file.metadata()?.len());
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        progress.advance(count as u64);
    }
    progress.end();
    Ok(hasher.finish())
}

/// Records the digest of the file of `source`.
pub(super) fn remember(source: &Source, sha256: &Sha256, model_dir: &Path) -> io::Result<()> {
    let path = resolve(source, model_dir);
    let stamp = Stamp::of(&fs::metadata(&path)?);
    let record = record_path(source, model_dir);
    if let Some(parent) = record.parent() {
        fs::create_dir_all(parent)?;
    }
    let name = path.file_name().unwrap_or_default().display();
    let Stamp { bytes, modified_ns } = stamp;
    files::replace(&record, format!("{sha256}  {name}\n{STAMP} {bytes} {modified_ns}\n"))
}

/// Returns the recorded digest of the file of `source`, even if the file has changed since.
pub(super) fn recorded(source: &Source, model_dir: &Path) -> Option<Sha256> {
    Record::read(&record_path(source, model_dir)).map(|record| record.sha256)
}

/// Start of the second line of a record: size in bytes and modification time in nanoseconds.
/// `sha256sum -c` skips the line.
const STAMP: &str = "# bytes, modified_ns:";

/// Path of the record. That of a `file:` source is below the model directory, because the user's
/// own directories stay as they are.
pub(super) fn record_path(source: &Source, model_dir: &Path) -> PathBuf {
    match source {
        Source::File(path) => {
            let mut hasher = Hasher::default();
            hasher.update(path.as_os_str().as_encoded_bytes());
            model_dir.join("file").join(format!("{}.sha256", hasher.finish()))
        }
        Source::Pypi(_) | Source::Hub(_) => {
            let mut path = resolve(source, model_dir).into_os_string();
            path.push(".sha256");
            path.into()
        }
    }
}

struct Record {
    sha256: Sha256,
    stamp: Stamp,
}

/// Size and time of a file, to notice that it was written again.
#[derive(PartialEq)]
struct Stamp {
    bytes: u64,
    modified_ns: u128,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let since_epoch =
            metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self { bytes: metadata.len(), modified_ns: since_epoch.map_or(0, |time| time.as_nanos()) }
    }
}

impl Record {
    /// `None` if there is no record or it cannot be parsed; the file is then hashed again.
    fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (checksum, stamp) = text.split_once('\n')?;
        let mut stamp = stamp.strip_prefix(STAMP)?.split_ascii_whitespace();
        Some(Self {
            sha256: checksum.split_ascii_whitespace().next()?.parse().ok()?,
            stamp: Stamp {
                bytes: stamp.next()?.parse().ok()?,
                modified_ns: stamp.next()?.parse().ok()?,
            },
        })
    }
}

/// Incremental SHA-256.
#[derive(Default)]
pub(super) struct Hasher(sha2::Sha256);

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> Sha256 {
        use fmt::Write;
        let mut hex = String::with_capacity(64);
        for byte in self.0.finalize() {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        Sha256(hex)
    }
}

impl FromStr for Sha256 {
    type Err = NotSha256;

    fn from_str(text: &str) -> Result<Self, NotSha256> {
        let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_digest { Ok(Self(text.to_ascii_lowercase())) } else { Err(NotSha256) }
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Sha256 {
    type Error = NotSha256;

    fn try_from(text: String) -> Result<Self, NotSha256> {
        text.parse()
    }
}

impl From<Sha256> for String {
    fn from(sha256: Sha256) -> Self {
        sha256.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of "abc", FIPS 180-4 example.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn fixture() -> (tempfile::TempDir, Source) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        fs::write(&path, "abc").unwrap();
        (dir, Source::File(path))
    }

    #[test]
    fn a_digest_is_checked_and_normalised() {
        assert_eq!(ABC.to_uppercase().parse::<Sha256>().unwrap().to_string(), ABC);
        assert_eq!(ABC[1..].parse::<Sha256>(), Err(NotSha256));
        assert_eq!(format!("{}g", &ABC[1..]).parse::<Sha256>(), Err(NotSha256));
    }

    #[test]
    fn a_file_is_known_only_after_it_was_hashed_and_only_until_it_changes() {
        let (dir, source) = fixture();
        let model_dir = dir.path().join("models");
        let state_now = |expected| file_state(&source, expected, &model_dir).unwrap();
        assert_eq!(state_now(None), FileState::Unverified { bytes: 3 });

        let sha256 = hash_file(&resolve(&source, &model_dir), &mut Progress::silent()).unwrap();
        assert_eq!(sha256.to_string(), ABC);
        remember(&source, &sha256, &model_dir).unwrap();
        assert_eq!(state_now(None), FileState::Verified { bytes: 3 });
        assert_eq!(state_now(Some(&sha256)), FileState::Verified { bytes: 3 });
        let other = Sha256("0".repeat(64));
        assert_eq!(state_now(Some(&other)), FileState::Wrong { actual: sha256.clone() });

        fs::write(dir.path().join("m.gguf"), "abcd").unwrap();
        assert_eq!(state_now(None), FileState::Unverified { bytes: 4 });
        fs::remove_file(dir.path().join("m.gguf")).unwrap();
        assert_eq!(state_now(None), FileState::Missing);
    }

    #[test]
    fn sha256sum_reads_the_record_of_a_pulled_file() {
        let dir = tempfile::tempdir().unwrap();
        let source: Source = "pypi:p==1/m.gguf".parse().unwrap();
        let path = resolve(&source, dir.path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "abc").unwrap();
        remember(&source, &ABC.parse().unwrap(), dir.path()).unwrap();
        let record = fs::read_to_string(path.with_file_name("m.gguf.sha256")).unwrap();
        assert_eq!(record.lines().next(), Some(format!("{ABC}  m.gguf").as_str()));
    }
}
