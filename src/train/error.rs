//! Reasons why training fails.

use std::path::PathBuf;

use thiserror::Error;

use crate::routing::AdequacyError;
use crate::traffic::LogError;

/// Least number of rows with outcomes.
pub(super) const ROWS_MIN: usize = 20;
/// Longest line of an outcome file, bytes.
pub(super) const LINE_BYTES_MAX: u64 = 4 << 20;

/// Why nothing could be trained.
#[derive(Debug, Error)]
pub enum TrainError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}:{line}: {problem}", path.display())]
    Line { path: PathBuf, line: usize, problem: BadLine },
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{} holds no verdict: send verdicts to POST /v1/feedback, or configure [judge]", .0.display())]
    NoVerdicts(PathBuf),
    #[error(
        "{} holds {labelled} verdicts but no prompt to learn from: set `prompts = \"full\"` in [traffic] before the requests come", path.display()
    )]
    NoPrompts { path: PathBuf, labelled: usize },
    #[error("{rows} rows with outcomes; at least {ROWS_MIN} are needed")]
    TooFew { rows: usize },
    #[error(
        "{found} judged answers with signals of their first tokens; at least {wanted} are needed: send verdicts to /v1/feedback, or configure [judge]"
    )]
    TooFewAnswers { found: usize, wanted: usize },
    #[error(
        "all outcomes are of one model, `{0}`: abilities need the answers of several; give --prior to refine a router by them"
    )]
    OneModel(String),
    #[error("every outcome is {0}: there is nothing to learn from one class")]
    SingleClass(&'static str),
    #[error("the prior router cannot be used: {0}")]
    Prior(#[from] AdequacyError),
    #[error("the fit failed: {0}")]
    Logistic(#[from] linfa_logistic::error::Error),
    #[error(
        "more able models are not the better ones in this data (slope {0:.3}): its models are all alike, or its outcomes contradict each other"
    )]
    Contradictory(f64),
}

impl TrainError {
    /// Whether the data, not the program, must change.
    pub fn is_bad_input(&self) -> bool {
        !matches!(self, Self::Logistic(_))
    }
}

/// Why a line of an outcome or vector file is invalid.
#[derive(Debug, Error)]
pub enum BadLine {
    #[error("the line is not JSON of the expected form, or cut short: {0}")]
    Json(#[from] serde_json::Error),
    #[error("`query` is empty")]
    NoQuery,
    #[error("`outcomes` is empty: the row has no label")]
    Unlabelled,
    #[error("the score of {model} is {score}; a score must be from 0 to 1")]
    Score { model: String, score: f64 },
    #[error("the line is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    #[error("the vector must have {expected} finite numbers, like the first one")]
    Vector { expected: usize },
    #[error("the line cannot be read: {0}")]
    Read(std::io::Error),
}
