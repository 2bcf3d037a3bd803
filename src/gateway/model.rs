//! A model as the gateway knows it: its backend, what it can do, and what its answers cost so far.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::backends::Backend;
use crate::energy::cloud::{self, EnergyClass};
use crate::energy::estimate::JoulesEstimator;
use crate::openai::Usage;
use crate::routing::{Candidate, Capabilities, Features, Route, Unavailable};
use crate::telemetry::metrics::ModelLabels;
use crate::units::{Dollars, Joules};

/// One configured model.
pub struct Model {
    pub name: Arc<str>,
    pub route: Route,
    /// Adequacy by ability, on the router's logit scale.
    pub ability: f64,
    pub backend: Arc<dyn Backend>,
    pub capabilities: Capabilities,
    pub pricing: Pricing,
    /// The variable that should hold the API key is not set.
    pub api_key_missing: bool,
    pub first_token: FirstTokenTime,
}

/// What an answer costs in energy and money.
pub enum Pricing {
    /// Metered here; money goes to nobody.
    Local(Arc<JoulesEstimator>),
    Cloud { class: Option<EnergyClass>, price: Option<Price> },
}

/// Dollars per million tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    pub input: f64,
    /// Prompt tokens from the upstream's cache.
    pub cached: f64,
    pub output: f64,
}

impl Price {
    pub fn of(&self, usage: &Usage) -> Dollars {
        let cached = usage.cached_tokens().min(usage.prompt_tokens);
        let fresh = usage.prompt_tokens - cached;
        let output = usage.completion_tokens;
        let micros =
            fresh as f64 * self.input + cached as f64 * self.cached + output as f64 * self.output;
        Dollars(micros / 1e6)
    }
}

impl Model {
    pub fn labels(&self) -> ModelLabels {
        ModelLabels { model: Arc::clone(&self.name), route: self.route.label() }
    }

    /// Whether it could be asked at all just now.
    pub fn unavailable(&self) -> Option<Unavailable> {
        let health = self.backend.health();
        if self.api_key_missing {
            Some(Unavailable::NoApiKey)
        } else if !health.ready {
            Some(Unavailable::NotReady)
        } else {
            None
        }
    }

    /// This model as a candidate for a request, with adequacy `p`.
    pub fn candidate(&self, features: &Features, p: f64) -> Candidate {
        Candidate {
            model: Arc::clone(&self.name),
            route: self.route,
            p,
            joules: self.expected_joules(features),
            dollars: self.dollars(&expected_usage(features)),
            ttft_ms: self.first_token.mean_ms(),
            context_tokens: self.backend.health().context_tokens,
            capabilities: self.capabilities,
            unavailable: self.unavailable(),
        }
    }

    /// Money owed for `usage`: none for a local model, unknown where no price is configured.
    pub fn dollars(&self, usage: &Usage) -> Option<Dollars> {
        match &self.pricing {
            Pricing::Local(_) => Some(Dollars(0.0)),
            Pricing::Cloud { price, .. } => price.map(|price| price.of(usage)),
        }
    }

    fn expected_joules(&self, features: &Features) -> Option<Joules> {
        let (prompt, output) = (features.prompt_tokens, features.output_tokens);
        match &self.pricing {
            Pricing::Local(estimator) => Some(estimator.expect(prompt, output)),
            Pricing::Cloud { class, .. } => {
                cloud::estimate(*class, u64::from(prompt), 0, u64::from(output)).joules
            }
        }
    }
}

fn expected_usage(features: &Features) -> Usage {
    let (prompt_tokens, completion_tokens) =
        (u64::from(features.prompt_tokens), u64::from(features.output_tokens));
    Usage {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens + completion_tokens,
        prompt_tokens_details: None,
    }
}

/// Exponentially weighted mean of the time to the first token; unknown until something was measured.
#[derive(Default)]
pub struct FirstTokenTime {
    /// Bits of an `f64`; 0 while unknown (a real mean is never exactly 0).
    mean_ms: AtomicU64,
}

impl FirstTokenTime {
    /// Share of the newest observation in the mean: about the last ten answers count.
    const WEIGHT: f64 = 0.2;

    pub fn observe(&self, observed_ms: f64) {
        let blend = |old: f64| {
            if old > 0.0 { old + Self::WEIGHT * (observed_ms - old) } else { observed_ms }
        };
        // Two answers that end at once may overwrite each other: one observation less is harmless.
        let old = f64::from_bits(self.mean_ms.load(Ordering::Relaxed));
        self.mean_ms.store(blend(old).to_bits(), Ordering::Relaxed);
    }

    pub fn mean_ms(&self) -> Option<f64> {
        let mean = f64::from_bits(self.mean_ms.load(Ordering::Relaxed));
        (mean > 0.0).then_some(mean)
    }
}
