//! Reports of evaluated batches: the facts that energy metering needs, no energy.

use serde::{Deserialize, Serialize};

use crate::units::{AttemptId, MonotonicNs};

/// One evaluation of one batch.
///
/// While the engine is busy, a step begins where the one before ended, so that all busy time is covered; an idle
/// engine's first step begins when it wakes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    pub start: MonotonicNs,
    pub end: MonotonicNs,
    pub rows: Vec<StepRow>,
    pub reused: Reused,
    pub drafted: Drafted,
}

/// Guesses of how answers go on that were evaluated with this step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drafted {
    pub tokens: u32,
    /// Those that the model would have written itself.
    pub accepted: u32,
}

/// Prompt tokens that did not have to be evaluated, by where their keys and values were; of the prompts that were
/// placed with this step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reused {
    /// In the slot the request got.
    pub slot: u32,
    /// In another slot: a prefix that several prompts share.
    pub shared: u32,
    /// In host memory.
    pub host: u32,
}

/// What a step did for one attempt.
///
/// Prompt tokens from the cache are never evaluated and not counted. Neither is the last token of an answer: an
/// attempt's decode tokens are one less than its completion tokens, and more by every guess that failed: that was work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRow {
    pub attempt: AttemptId,
    pub prefill_tokens: u32,
    pub decode_tokens: u32,
}
