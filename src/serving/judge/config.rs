//! Settings of shadow judging.

use serde::Deserialize;

use crate::validate::{Diagnostics, Validate};

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

impl Validate for Config {
    fn validate(&self, out: &mut Diagnostics) {
        out.range("share", self.share, 0.0..=1.0, "");
        out.range("queue", self.queue, 1..=1024, "");
        out.positive([("deadline_ms", self.deadline_ms)]);
        if self.share > 0.0 && self.model.is_none() {
            out.reject("share", "`share` is more than 0 and no `model` judges")
                .hint("add `model = \"NAME\"`, one of [models]");
        }
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
