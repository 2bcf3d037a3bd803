//! The idle unloader: unloads models that cost more loaded than another load would.
//!
//! The rule is [`keep_alive`]. Models that the config keeps loaded are excluded, and a busy
//! supervisor refuses to unload.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::backends::llama::{
    Control, EnginesConfig, Idle, MemoryBudget, UnloadReason, keep_alive,
};
use crate::energy::MeterHandle;
use crate::units::Watts;

/// Interval between checks of idle models.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// Unloads idle models.
pub struct IdleUnloader {
    pub config: EnginesConfig,
    pub residency: Arc<MemoryBudget>,
    pub meter: MeterHandle,
    pub models: Vec<OnDemand>,
}

/// A model that is loaded on demand and may be unloaded.
pub struct OnDemand {
    pub name: Arc<str>,
    pub control: Control,
    /// Configured power of the loaded idle model.
    pub warm_watts: Option<Watts>,
}

impl IdleUnloader {
    /// Checks idle models until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(CHECK_EVERY) => {}
                () = stop.cancelled() => return,
            }
            for idle in self.residency.idle() {
                let Some(model) = self.models.iter().find(|model| model.name == idle.model) else {
                    continue;
                };
                if idle.since > self.keep_alive(model, &idle) {
                    // Refused if it is busy by now; retried when it is idle again.
                    let _busy = model.control.unload(UnloadReason::Idle, false).await;
                }
            }
        }
    }

    fn keep_alive(&self, model: &OnDemand, idle: &Idle) -> Duration {
        let weights_bytes = model.control.state().memory.weights_bytes;
        let load = self.meter.load_energy(&model.name, weights_bytes).joules;
        let warm = model.warm_watts.unwrap_or_else(|| self.config.warm_watts(idle.bytes));
        keep_alive(load, warm, self.config.bounds())
    }
}
