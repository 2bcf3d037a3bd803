//! A model as the serving core knows it: its deployments, its capabilities and its expected costs.

use std::sync::Arc;

use super::deployment::{Deployment, Kind, LoadCost};
use super::online_stats::{Observed, OnlineStats, RecentMean};
use super::pool::Pool;
use crate::backends::Health;
use crate::backends::llama::Phase;
use crate::energy::{MeterHandle, Tokens};
use crate::locality::Locality;
use crate::routing::{Cache, Candidate, Capabilities, Costs, Features, Route};
use crate::serving::pricing::{Electricity, Work, expected_grams};
use crate::telemetry::ModelSeries;
use crate::telemetry::metrics::ModelLabels;
use crate::units::unix_ms;

/// One configured model.
pub struct Model {
    pub name: Arc<str>,
    pub primary: Arc<Deployment>,
    /// Further deployments of the same model.
    pub others: Vec<Arc<Deployment>>,
    pub capabilities: Capabilities,
    /// Makes a conversation that is too long fit by leaving out its oldest turns.
    pub drops_oldest_turns: bool,
    /// Changes with the model file and the program; `None` for upstreams, which have their own.
    pub fingerprint: Option<Arc<str>>,
    pub stats: OnlineStats,
    /// Its metrics.
    pub series: ModelSeries,
    /// Time to the first token divided by the profile's: how busy the model is.
    pub slowdown: RecentMean,
}

impl Model {
    pub fn deployments(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        std::iter::once(&self.primary).chain(&self.others)
    }

    fn within(&self, reach: Locality) -> impl Iterator<Item = &Arc<Deployment>> {
        self.deployments().filter(move |deployment| deployment.locality <= reach)
    }

    /// The deployments to try within `reach`: those that take requests, fewest in flight first. If
    /// none does, the first one, whose error then says why.
    pub fn to_try(&self, reach: Locality) -> Vec<Arc<Deployment>> {
        let ready = self.within(reach).filter_map(|deployment| {
            let health = deployment.backend.health();
            deployment.unavailable(health).is_none().then_some((health.in_flight, deployment))
        });
        let mut ready: Vec<(u32, &Arc<Deployment>)> = ready.collect();
        ready.sort_by_key(|(in_flight, _)| *in_flight);
        if ready.is_empty() {
            ready.extend(self.within(reach).next().map(|first| (0, first)));
        }
        ready.into_iter().map(|(_, deployment)| Arc::clone(deployment)).collect()
    }

    /// The deployments within `reach` taken together; the primary one if none is.
    fn pool(&self, reach: Locality) -> Pool<'_> {
        let pools = self.within(reach).map(Pool::of);
        pools.reduce(Pool::plus).unwrap_or_else(|| Pool::of(&self.primary))
    }

    /// Locality of the nearest deployment.
    pub fn nearest(&self) -> Locality {
        let others = self.others.iter().map(|deployment| deployment.locality);
        others.fold(self.primary.locality, Locality::min)
    }

    pub fn route(&self) -> Route {
        self.primary.route()
    }

    pub fn labels(&self) -> ModelLabels {
        ModelLabels { model: Arc::clone(&self.name), route: self.route().label() }
    }

    pub fn is_ready(&self) -> bool {
        self.pool(Locality::ThirdParty).unavailable.is_none()
    }

    /// Health of all deployments together.
    pub fn health(&self) -> Health {
        self.pool(Locality::ThirdParty).health
    }

    /// This model as a candidate for a request, with adequacy `p` and `cached_tokens` of the prompt
    /// in its cache. Costs are those of the deployment within `reach` that would be tried first.
    pub fn candidate(
        &self,
        features: &Features,
        p: f64,
        cached_tokens: u64,
        reach: Locality,
        meter: &MeterHandle,
    ) -> Candidate {
        let Pool { best, health, unavailable, .. } = self.pool(reach);
        let loading = best.load_cost(&self.name, meter);
        let output_tokens = self.stats.output_tokens(features);
        // An engine that is not loaded has no cache.
        let cached = if loading.is_some() { 0 } else { cached_tokens };
        let cached_tokens = u32::try_from(cached).unwrap_or(u32::MAX).min(features.prompt_tokens);
        let costs = |cached: u32| {
            let work = Work {
                prompt: features.prompt_tokens.into(),
                cached: cached.into(),
                generated: output_tokens.into(),
                media: features.needs.media,
            };
            self.costs(best, work, loading.as_ref(), health, meter)
        };
        let Costs { joules, dollars, ttft_ms, grams } = costs(cached_tokens);
        Candidate {
            model: Arc::clone(&self.name),
            route: self.route(),
            locality: self.declared_locality(),
            p,
            joules,
            dollars,
            ttft_ms,
            grams,
            output_tokens: Some(output_tokens),
            state: loading.as_ref().map(|cost| cost.state),
            context_tokens: health.context_tokens,
            drops_turns: self.drops_oldest_turns,
            capabilities: self.capabilities(),
            unavailable,
            cache: (cached_tokens > 0).then(|| Cache { tokens: cached_tokens, without: costs(0) }),
        }
    }

    /// The nearest locality, where the route does not already say it.
    fn declared_locality(&self) -> Option<Locality> {
        let implied = match self.route() {
            Route::Local => Locality::OnHost,
            Route::Cloud => Locality::ThirdParty,
        };
        Some(self.nearest()).filter(|nearest| *nearest != implied)
    }

    /// Expected costs of work that begins now, loading included.
    fn costs(
        &self,
        deployment: &Deployment,
        work: Work,
        loading: Option<&LoadCost>,
        health: Health,
        meter: &MeterHandle,
    ) -> Costs {
        let billing = deployment.billing();
        let mut joules = billing.expected_joules(work, |tokens| meter.expected(&self.name, tokens));
        let mut ttft_ms = self.expected_first_token_ms(work.prompt - work.cached, meter);
        if let Some(load) = loading {
            joules = joules.zip(load.joules).map(|(answer, load)| answer + load);
            ttft_ms = ttft_ms.map(|answer| answer + load.ms);
        }
        let queue_ms = self.stats.queue_ms(health);
        let electricity = match meter.rates().tariff() {
            Some(tariff) => Electricity::At(tariff, unix_ms()),
            None => Electricity::Unpriced,
        };
        Costs {
            joules,
            dollars: billing.expected_dollars(work, joules, electricity),
            ttft_ms: ttft_ms.map(|ms| ms + queue_ms),
            grams: expected_grams(joules, deployment.grid(meter).as_ref()),
        }
    }

    /// Capabilities as far as they are known now: whether a local model can chat is in its file;
    /// one that is not loaded gets the benefit of the doubt about tools.
    fn capabilities(&self) -> Capabilities {
        let Kind::Local { engine, .. } = &self.primary.kind else { return self.capabilities };
        let state = engine.borrow();
        let tools = match &state.phase {
            Phase::Ready(facts) => facts.takes_tools,
            _ => self.capabilities.tools,
        };
        let chat = self.capabilities.chat && !state.no_chat_template;
        Capabilities { chat, tools, ..self.capabilities }
    }

    /// Trains the statistics on an answer. Returns by how many tokens its length was mispredicted.
    pub fn learn(&self, features: &Features, observed: &Observed, meter: &MeterHandle) -> u64 {
        let measured_ms = self.measured_first_token_ms(observed.computed_tokens, meter);
        if let Some((ms, measured_ms)) = observed.first_token_ms.zip(measured_ms) {
            self.slowdown.observe(ms / measured_ms);
        }
        self.stats.learn(features, observed)
    }

    /// Of a prompt of which `tokens` are in no cache, once it has a slot.
    fn expected_first_token_ms(&self, tokens: u64, meter: &MeterHandle) -> Option<f64> {
        let measured_ms = self.measured_first_token_ms(tokens, meter);
        let slowed =
            measured_ms.map(|measured_ms| measured_ms * self.slowdown.mean().unwrap_or(1.0));
        slowed.or_else(|| self.stats.first_token_ms(tokens))
    }

    /// The profile's figure for a prompt of that length on an idle machine.
    fn measured_first_token_ms(&self, prompt_tokens: u64, meter: &MeterHandle) -> Option<f64> {
        let tokens = Tokens { prefill: prompt_tokens, decode: 1 };
        meter.expected_time(&self.name, tokens).map(|time| time.first_token_s * 1e3)
    }
}
