//! Observer of engine processes and attempts, for metering. Reports facts only: no energy, no
//! prices.

use std::sync::Arc;
use std::time::Duration;

use super::state::UnloadReason;
use crate::backends::llama::wire::step::StepReport;
use crate::units::AttemptId;

/// Receives every engine process, attempt and step. Called from the supervisor's task: must be
/// cheap and must not block.
pub trait EngineObserver: Send + Sync {
    /// A process has started and begins to load its model.
    fn engine_started(&self, model: &Arc<str>, pid: u32);

    /// The model is loaded, after `took`, and accepts attempts.
    fn engine_ready(&self, model: &Arc<str>, took: Duration);

    /// A working engine was unloaded. Follows `engine_stopped`.
    fn engine_unloaded(&self, model: &Arc<str>, reason: UnloadReason);

    /// The process has ended or is about to; its attempts are closed. Called before it is reaped,
    /// after which its pid may be reused.
    fn engine_stopped(&self, model: &Arc<str>, pid: u32);

    /// Called before the attempt is sent to the engine.
    fn attempt_opened(&self, model: &Arc<str>, attempt: AttemptId);

    /// The attempt got a slot, `waited` after it was opened.
    fn attempt_admitted(&self, model: &Arc<str>, attempt: AttemptId, waited: Duration);

    /// The engine evaluated a batch. Precedes `attempt_closed` of attempts that end with it.
    fn step(&self, model: &Arc<str>, step: &StepReport);

    /// Called exactly once per opened attempt: finished, refused, cancelled, or failed with its
    /// engine.
    fn attempt_closed(&self, model: &Arc<str>, attempt: AttemptId);

    /// The attempt ended before it was opened, and used no energy.
    fn attempt_unserved(&self, model: &Arc<str>, attempt: AttemptId);
}
