//! What engines tell about their work, for whoever meters it. Facts only: no energy, no prices.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::control::UnloadReason;
use crate::units::{AttemptId, MonotonicNs};

/// Hears about every engine process, attempt and step. Called from the supervisor's task: must be cheap and must
/// not block.
pub trait EngineObserver: Send + Sync {
    /// A process was started; it begins to load its model.
    fn engine_started(&self, model: &Arc<str>, pid: u32);

    /// It has loaded its model, which took that long, and takes attempts.
    fn engine_ready(&self, model: &Arc<str>, took: Duration);

    /// The model leaves memory though nothing is wrong with it; `engine_stopped` has come before.
    fn engine_unloaded(&self, model: &Arc<str>, reason: UnloadReason);

    /// The process has ended or leaves now; its attempts are closed. It is reaped afterwards, and then its pid may belong to
    /// someone else.
    fn engine_stopped(&self, model: &Arc<str>, pid: u32);

    /// Before the engine hears of the attempt.
    fn attempt_opened(&self, model: &Arc<str>, attempt: AttemptId);

    /// The attempt got a slot, `waited` after it was opened.
    fn attempt_admitted(&self, model: &Arc<str>, attempt: AttemptId, waited: Duration);

    /// The engine evaluated one batch. Comes before `attempt_closed` of the attempts that ended with it.
    fn step(&self, model: &Arc<str>, step: &StepReport);

    /// Exactly once per opened attempt: finished, refused, cancelled, or its engine died.
    fn attempt_closed(&self, model: &Arc<str>, attempt: AttemptId);

    /// The attempt ended while it waited for its model: it was never opened, and nothing was spent on it.
    fn attempt_unserved(&self, model: &Arc<str>, attempt: AttemptId);
}

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
