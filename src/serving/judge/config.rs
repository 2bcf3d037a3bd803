//! Settings of shadow judging.

use serde::Deserialize;

/// `[judge]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Share of the answered conversations to judge, 0 to 1. Default 0: none.
    pub share: f64,
    /// The model that judges, by its name in `[models]`. Needed where `share` is more than 0.
    pub model: Option<String>,
    /// Default `pairwise`.
    pub mode: Mode,
    /// Answers that may wait to be judged, 1 to 1024; more are left out. Default 16.
    pub queue: u32,
    /// Longest time for one answer, all of the judge's work together, milliseconds. Default 120000.
    pub deadline_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { share: 0.0, model: None, mode: Mode::Pairwise, queue: 16, deadline_ms: 120_000 }
    }
}

/// How an answer is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By itself.
    Pointwise,
    /// Against the answer of the most able other candidate, in both orders; by itself where there
    /// is no other.
    Pairwise,
}
