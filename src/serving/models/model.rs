//! A model as the gateway knows it: its backend, what it can do, and what its answers cost so far.

use std::sync::Arc;

use tokio::sync::watch;

use super::online_stats::{Observed, OnlineStats, RecentMean};
use crate::backends::cloud;
use crate::backends::llama::{self, EngineState};
use crate::backends::{Backend, Health};
use crate::energy::carbon::{Grid, grams};
use crate::energy::cloud::estimate;
use crate::energy::{EnergyFigure, MeterHandle, Source, Tokens};
use crate::openai::Usage;
use crate::openai::chat::PromptTokensDetails;
use crate::routing::{
    Cache, Candidate, Capabilities, Costs, Features, NotLoaded, Route, Unavailable,
};
use crate::telemetry::ModelSeries;
use crate::telemetry::metrics::ModelLabels;
use crate::units::{Dollars, Joules, unix_ms};

/// What a request adds that finds the model not loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadCost {
    pub state: NotLoaded,
    /// Time until it is loaded.
    pub ms: f64,
    /// 0 for a load that is under way: others caused it. Unknown is not zero.
    pub joules: Option<Joules>,
}

/// One configured model.
pub struct Model {
    pub name: Arc<str>,
    pub backend: Arc<dyn Backend>,
    pub capabilities: Capabilities,
    pub kind: Kind,
    /// The variable that should hold the API key is not set.
    pub api_key_missing: bool,
    /// Makes a conversation that is too long fit by leaving out its oldest turns.
    pub drops_oldest_turns: bool,
    pub stats: OnlineStats,
    /// Its metrics.
    pub series: ModelSeries,
    /// Time to the first token over what the profile says of it: how busy the model is.
    pub slowdown: RecentMean,
}

/// What a model runs on, and so what an answer costs in energy and money.
pub enum Kind {
    /// Metered here; money goes to nobody.
    Local { engine: watch::Receiver<EngineState>, control: llama::Control },
    /// Energy from the table of classes, money from the configured prices.
    Cloud(Box<cloud::Config>),
}

impl Model {
    pub fn route(&self) -> Route {
        match self.kind {
            Kind::Local { .. } => Route::Local,
            Kind::Cloud(_) => Route::Cloud,
        }
    }

    pub fn labels(&self) -> ModelLabels {
        ModelLabels { model: Arc::clone(&self.name), route: self.route().label() }
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

    pub fn is_ready(&self) -> bool {
        self.unavailable().is_none()
    }

    /// This model as a candidate for a request, with adequacy `p` and `cached_tokens` of the prompt in its cache.
    pub fn candidate(
        &self,
        features: &Features,
        p: f64,
        cached_tokens: u64,
        meter: &MeterHandle,
    ) -> Candidate {
        let health = self.backend.health();
        let loading = self.load_cost(meter);
        let output_tokens = self.stats.output_tokens(features);
        // An engine that is not loaded has no cache.
        let cached = if loading.is_some() { 0 } else { cached_tokens };
        let cached_tokens = u32::try_from(cached).unwrap_or(u32::MAX).min(features.prompt_tokens);
        let costs = |cached| {
            let work = Work {
                prompt: features.prompt_tokens,
                cached,
                output: output_tokens,
                media: features.needs.media,
            };
            self.costs(work, loading.as_ref(), health, meter)
        };
        let Costs { joules, dollars, ttft_ms, grams } = costs(cached_tokens);
        Candidate {
            model: Arc::clone(&self.name),
            route: self.route(),
            p,
            joules,
            dollars,
            ttft_ms,
            grams,
            output_tokens: Some(output_tokens),
            state: loading.as_ref().map(|cost| cost.state),
            context_tokens: health.context_tokens,
            capabilities: self.capabilities(),
            unavailable: self.unavailable(),
            cache: (cached_tokens > 0).then(|| Cache { tokens: cached_tokens, without: costs(0) }),
        }
    }

    /// What work that begins now is expected to take, loading included.
    fn costs(
        &self,
        work: Work,
        loading: Option<&LoadCost>,
        health: Health,
        meter: &MeterHandle,
    ) -> Costs {
        let computed = work.prompt - work.cached;
        let mut joules = self.expected_energy(work, meter).joules;
        let mut ttft_ms = self.expected_first_token_ms(computed, meter);
        if let Some(load) = loading {
            joules = joules.zip(load.joules).map(|(answer, load)| answer + load);
            ttft_ms = ttft_ms.map(|answer| answer + load.ms);
        }
        let queue_ms = self.stats.queue_ms(health);
        Costs {
            joules,
            dollars: self.expected_dollars(work, joules, meter),
            ttft_ms: ttft_ms.map(|ms| ms + queue_ms),
            grams: joules
                .zip(self.grid(meter))
                .map(|(joules, grid)| grams(joules, grid.grams_per_kwh)),
        }
    }

    /// What it can do, as far as is known now: whether a local model can chat is seen in its file; one that is not loaded
    /// gets the benefit of the doubt about tools.
    fn capabilities(&self) -> Capabilities {
        let Kind::Local { engine, .. } = &self.kind else { return self.capabilities };
        let state = engine.borrow();
        let tools = match &state.phase {
            llama::Phase::Ready(facts) => facts.takes_tools,
            _ => self.capabilities.tools,
        };
        let chat = self.capabilities.chat && !state.no_chat_template;
        Capabilities { chat, tools, ..self.capabilities }
    }

    /// What loading adds to an answer begun now; nothing where the model is loaded or runs elsewhere.
    pub fn load_cost(&self, meter: &MeterHandle) -> Option<LoadCost> {
        let Kind::Local { engine, .. } = &self.kind else { return None };
        let engine = engine.borrow();
        match engine.phase {
            llama::Phase::Unloaded => Some(LoadCost {
                state: NotLoaded::Unloaded,
                ms: engine.load_ms(),
                joules: meter.load_energy(&self.name, engine.footprint.weights_bytes).joules,
            }),
            llama::Phase::Loading { percent } if engine.on_demand => Some(LoadCost {
                state: NotLoaded::Loading,
                ms: engine.load_ms() * (1.0 - f64::from(percent.min(100)) / 100.0),
                joules: Some(Joules(0.0)),
            }),
            _ => None,
        }
    }

    /// Money owed for `usage`: none for a local model, unknown where no price is configured.
    pub fn dollars(&self, usage: &Usage) -> Option<Dollars> {
        match &self.kind {
            Kind::Local { .. } => Some(Dollars(0.0)),
            Kind::Cloud(config) => config.dollars(usage),
        }
    }

    /// What an answer will cost the operator: its electricity where that has a price, or what the upstream asks.
    fn expected_dollars(
        &self,
        work: Work,
        joules: Option<Joules>,
        meter: &MeterHandle,
    ) -> Option<Dollars> {
        match (&self.kind, meter.rates().tariff()) {
            (Kind::Local { .. }, Some(tariff)) => Some(tariff.cost(joules?, unix_ms())),
            _ => self.dollars(&work.usage()),
        }
    }

    /// The grid that feeds it; none unless carbon is configured.
    fn grid(&self, meter: &MeterHandle) -> Option<Grid> {
        match &self.kind {
            Kind::Local { .. } => meter.rates().here(),
            Kind::Cloud(config) => meter.rates().elsewhere(config.carbon_zone.as_deref()),
        }
    }

    /// Takes in an answer; gives back how many tokens its length was expected to be off by.
    pub fn learn(&self, features: &Features, observed: &Observed, meter: &MeterHandle) -> u64 {
        let measured_ms = self.measured_first_token_ms(observed.computed_tokens, meter);
        if let Some((ms, measured_ms)) = observed.first_token_ms.zip(measured_ms) {
            self.slowdown.observe(ms / measured_ms);
        }
        self.stats.learn(features, observed)
    }

    /// Of a prompt of which `tokens` are in no cache, once it has a slot.
    fn expected_first_token_ms(&self, tokens: u32, meter: &MeterHandle) -> Option<f64> {
        let measured_ms = self.measured_first_token_ms(tokens.into(), meter);
        let slowed =
            measured_ms.map(|measured_ms| measured_ms * self.slowdown.mean().unwrap_or(1.0));
        slowed.or_else(|| self.stats.first_token_ms(tokens))
    }

    /// What the profile says of a prompt of that length, with nobody else there.
    fn measured_first_token_ms(&self, prompt_tokens: u64, meter: &MeterHandle) -> Option<f64> {
        let tokens = Tokens { prefill: prompt_tokens, decode: 1 };
        meter.expected_time(&self.name, tokens).map(|time| time.first_token_s * 1e3)
    }

    fn expected_energy(&self, work: Work, meter: &MeterHandle) -> EnergyFigure {
        let (prompt, output) = (work.prompt.into(), work.output.into());
        let cached = work.cached.into();
        match &self.kind {
            Kind::Local { .. } => {
                meter.expected(&self.name, Tokens { prefill: prompt - cached, decode: output })
            }
            Kind::Cloud(_) if work.media => EnergyFigure::unknown(Source::CloudTable),
            Kind::Cloud(config) => estimate(config.per_token(), prompt, cached, output),
        }
    }
}

/// Tokens of an answer that has not run yet.
#[derive(Clone, Copy, Debug)]
struct Work {
    prompt: u32,
    /// Part of the prompt.
    cached: u32,
    output: u32,
    /// Images and the like, whose energy no table knows.
    media: bool,
}

impl Work {
    fn usage(self) -> Usage {
        let (prompt_tokens, completion_tokens) = (u64::from(self.prompt), u64::from(self.output));
        let cached_tokens = Some(self.cached.into());
        Usage {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: Some(PromptTokensDetails { cached_tokens }),
            ..Usage::default()
        }
    }
}
