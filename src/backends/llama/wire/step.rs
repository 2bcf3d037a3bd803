//! Reports of evaluated batches: the input of energy metering.

use serde::{Deserialize, Serialize};

use crate::energy::WorkSpan;

/// One evaluation of one batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    pub work: WorkSpan,
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
