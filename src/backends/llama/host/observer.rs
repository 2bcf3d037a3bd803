//! Observer of engine processes and attempts, for metering. Reports facts only: no energy, no
//! prices.

use std::sync::Arc;
use std::time::Duration;

use super::state::UnloadReason;
use crate::backends::llama::wire::step::StepReport;
use crate::energy::AttemptObserver;

/// Receives every engine process, attempt and step. Called from the supervisor's task: must be
/// cheap and must not block.
pub trait EngineObserver: AttemptObserver {
    /// A process has started and begins to load its model.
    fn engine_started(&self, model: &Arc<str>, pid: u32);

    /// The model is loaded, after `took`, and accepts attempts.
    fn engine_ready(&self, model: &Arc<str>, took: Duration);

    /// A working engine was unloaded. Follows `engine_stopped`.
    fn engine_unloaded(&self, model: &Arc<str>, reason: UnloadReason);

    /// The process has ended or is about to; its attempts are closed. Called before it is reaped,
    /// after which its pid may be reused.
    fn engine_stopped(&self, model: &Arc<str>, pid: u32);

    /// The engine evaluated a batch. Follows [`AttemptObserver::work`], precedes `attempt_closed`
    /// of attempts that end with it.
    fn step(&self, model: &Arc<str>, step: &StepReport);
}
