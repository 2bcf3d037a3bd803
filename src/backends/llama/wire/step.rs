//! Reports of evaluated batches: the input of energy metering.

use serde::{Deserialize, Serialize};

use crate::units::{AttemptId, MonotonicNs};

/// One evaluation of one batch.
///
/// While the engine is busy, a step begins at the end of the previous one, so that steps cover all
/// busy time; an idle engine's first step begins when it wakes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    pub start: MonotonicNs,
    pub end: MonotonicNs,
    pub rows: Vec<StepRow>,
    pub reused: Reused,
    pub drafted: Drafted,
}

/// Speculative tokens evaluated in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drafted {
    pub tokens: u32,
    /// Those that matched the model's own choice.
    pub accepted: u32,
}

/// Cached prompt tokens of the prompts placed in a step, by location of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reused {
    /// In the request's slot.
    pub slot: u32,
    /// In another slot: a shared prefix.
    pub shared: u32,
    /// In host memory.
    pub host: u32,
}

/// Work of a step for one attempt.
///
/// Cached prompt tokens are not evaluated and not counted. The last token of an answer is not
/// evaluated either: decode tokens are one less than completion tokens, plus rejected drafts, which
/// are work too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRow {
    pub attempt: AttemptId,
    pub prefill_tokens: u32,
    pub decode_tokens: u32,
}
