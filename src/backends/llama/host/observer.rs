//! What engines tell about their work, for whoever meters it. Facts only: no energy, no prices.

use std::sync::Arc;
use std::time::Duration;

use super::state::UnloadReason;
use crate::backends::llama::wire::step::StepReport;
use crate::units::AttemptId;

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
