//! Errors of `wattgate route` that the caller can correct, with suggestions for mistyped names.

use std::io;
use std::path::PathBuf;

use crate::routing::AdequacyError;
use crate::routing::adequacy::names::canonical;

/// Why the arguments or the lines cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadInput {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("no policy `{name}` in the config; similar names: {near}")]
    Policy { name: String, near: String },
    #[error("`{0}` is not a pair: --pair takes two different names, WEAK,STRONG")]
    Pair(String),
    #[error(
        "`{name}` is neither a model of the config nor of the router's data; similar names: {near}"
    )]
    PairModel { name: String, near: String },
    #[error("the config has no model that answers in text")]
    NoModel,
    #[error("{bad} of {lines} lines could not be scored")]
    Lines { bad: usize, lines: usize },
    #[error(transparent)]
    Router(#[from] AdequacyError),
}

/// The three most similar names.
pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n String>) -> String {
    let like = |known: &&String| strsim::jaro_winkler(&canonical(name), &canonical(known));
    let mut known: Vec<&String> = known.collect();
    known.sort_by(|a, b| like(b).total_cmp(&like(a)));
    let quoted: Vec<String> = known.into_iter().take(3).map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
