//! Deployment of a model: its backend, locality, meter and billing.

use std::sync::Arc;

use tokio::sync::watch;

use crate::backends::llama::{self, EngineState};
use crate::backends::{Backend, Health, cloud};
use crate::energy::MeterHandle;
use crate::energy::grid::emissions::Grid;
use crate::locality::Locality;
use crate::routing::{NotLoaded, Route, Unavailable};
use crate::serving::pricing::Billing;
use crate::units::Joules;

/// Runtime of a deployment.
pub enum Kind {
    /// An engine process of this gateway.
    Local { engine: watch::Receiver<EngineState>, control: llama::Control },
    /// An OpenAI-compatible server.
    Cloud(Box<cloud::Config>),
}

/// Origin of the energy figures of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeteredBy {
    /// The engine's steps and this machine's sensors.
    Engine,
    /// A meter elsewhere that this gateway reads.
    Remote,
    /// The upstream's own report, or the class table.
    Table,
}

/// One place where a model runs.
pub struct Deployment {
    /// `engine`, or the host and port of an upstream.
    pub name: Arc<str>,
    /// Has its own circuit breaker, connection limit and queue.
    pub backend: Arc<dyn Backend>,
    pub kind: Kind,
    pub locality: Locality,
    pub metered_by: MeteredBy,
    /// The variable that should hold the API key is not set.
    pub api_key_missing: bool,
}

/// Cost added by a request that finds the model not loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadCost {
    pub state: NotLoaded,
    /// Time until it is loaded.
    pub ms: f64,
    /// 0 for a load that is under way: others caused it. Unknown is not zero.
    pub joules: Option<Joules>,
}

impl Deployment {
    pub fn route(&self) -> Route {
        match self.kind {
            Kind::Local { .. } => Route::Local,
            Kind::Cloud(_) => Route::Cloud,
        }
    }

    /// Origin of its joules and dollars.
    pub fn billing(&self) -> Billing<'_> {
        match &self.kind {
            Kind::Local { .. } => Billing::Engine,
            Kind::Cloud(config) => Billing::Upstream(config),
        }
    }

    /// Why it takes no request at present, by its `health`; `None` if it does.
    pub fn unavailable(&self, health: Health) -> Option<Unavailable> {
        if self.api_key_missing {
            Some(Unavailable::NoApiKey)
        } else if !health.ready {
            Some(Unavailable::NotReady)
        } else {
            None
        }
    }

    /// Cost of loading `model` for an answer begun now; `None` if it is loaded or runs elsewhere.
    pub fn load_cost(&self, model: &Arc<str>, meter: &MeterHandle) -> Option<LoadCost> {
        let Kind::Local { engine, .. } = &self.kind else { return None };
        let engine = engine.borrow();
        match engine.phase {
            llama::Phase::Unloaded => Some(LoadCost {
                state: NotLoaded::Unloaded,
                ms: engine.load_ms(),
                joules: meter.load_energy(model, engine.memory.weights_bytes).joules,
            }),
            llama::Phase::Loading { .. } if engine.on_demand => Some(LoadCost {
                state: NotLoaded::Loading,
                ms: engine.ready_in().map_or(0.0, |left| left.as_secs_f64() * 1e3),
                joules: Some(Joules(0.0)),
            }),
            _ => None,
        }
    }

    /// Zone of its grid, where the operator named one.
    pub fn carbon_zone(&self) -> Option<&str> {
        match &self.kind {
            Kind::Local { .. } => None,
            Kind::Cloud(config) => config.carbon_zone.as_deref(),
        }
    }

    /// The grid that feeds it; `None` unless carbon is configured.
    pub fn grid(&self, meter: &MeterHandle) -> Option<Grid> {
        match self.kind {
            Kind::Local { .. } => meter.rates().here(),
            Kind::Cloud(_) => meter.rates().elsewhere(self.carbon_zone()),
        }
    }
}
