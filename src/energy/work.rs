//! What an engine reports of one step: who it worked for, on how many tokens, from when to when.
//!
//! Data only; the ledger decides what it weighs.

use serde::{Deserialize, Serialize};

use crate::units::{AttemptId, MonotonicNs};

/// One step of an engine (one batch). Steps of one engine follow each other and are reported in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkSpan {
    pub start: MonotonicNs,
    pub end: MonotonicNs,
    pub rows: Vec<WorkRow>,
}

/// The part of a step done for one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkRow {
    pub attempt: AttemptId,
    /// Prompt tokens computed in this step; tokens taken from a cache are not work and are left out.
    pub prefill_tokens: u32,
    /// Tokens generated in this step.
    pub decode_tokens: u32,
}
