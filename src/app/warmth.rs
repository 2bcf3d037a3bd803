//! Unloads models that cost more warm than loading them again would.
//!
//! The rule is [`keep_alive`]; here are the clock and the asking. A model that is kept loaded by the config is left alone, and a
//! supervisor that is busy by then does not obey.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::backends::llama::{
    Control, EnginesConfig, Idle, MemoryBudget, UnloadReason, keep_alive,
};
use crate::energy::MeterHandle;
use crate::units::Watts;

/// How often idle models are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Watches idle models.
pub struct Warmth {
    pub config: EnginesConfig,
    pub residency: Arc<MemoryBudget>,
    pub meter: MeterHandle,
    pub models: Vec<OnDemand>,
}

/// A model that comes on demand and may go.
pub struct OnDemand {
    pub name: Arc<str>,
    pub control: Control,
    /// What the config says that keeping it warm costs.
    pub warm_watts: Option<Watts>,
}

impl Warmth {
    /// Looks at idle models until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => return,
            }
            for idle in self.residency.idle() {
                let Some(model) = self.models.iter().find(|model| model.name == idle.model) else {
                    continue;
                };
                if idle.since > self.keep_alive(model, &idle) {
                    // Refused when it is busy by now; asked again when it is idle again.
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
