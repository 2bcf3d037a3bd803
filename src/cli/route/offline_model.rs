//! Models that `wattgate route` scores: those of the config as if all were ready, or a pair of
//! names.

use std::sync::Arc;

use super::bad_input::{BadInput, nearest};
use crate::app::assemble;
use crate::backends::cloud as upstream;
use crate::backends::llama::Overflow;
use crate::config::{Config, Engine, Model};
use crate::energy::carbon::{Grid, grams};
use crate::energy::estimate::Estimator;
use crate::energy::rates::Rates;
use crate::energy::{Profile, Tokens, cloud};
use crate::openai::Usage;
use crate::routing::text::TextVector;
use crate::routing::{AdequacyModel, Candidate, Capabilities, Features, OutputLength, Route};
use crate::units::Dollars;

/// A model with the means to predict its adequacy and energy.
pub(super) struct OfflineModel {
    pub(super) model: Arc<str>,
    pub(super) route: Route,
    ability: f64,
    capabilities: Capabilities,
    context_tokens: Option<u32>,
    energy: Energy,
    price: Price,
    /// Grid of its electricity, if carbon is configured.
    grid: Option<Grid>,
}

enum Energy {
    Unknown,
    Cloud(Option<cloud::PerToken>),
    /// Estimate of a local model by its profile, or the configured prior without one.
    Local(Estimator),
}

enum Price {
    Unknown,
    /// Local models have no price per token.
    Nothing,
    Upstream(Box<upstream::Config>),
}

/// Models of one config under one router.
pub(super) struct OfflineModels<'c> {
    pub(super) config: &'c Config,
    pub(super) adequacy: &'c AdequacyModel,
    pub(super) profile: Arc<Profile>,
    pub(super) rates: Rates,
}

impl OfflineModels<'_> {
    /// All text models of the config.
    pub(super) fn all(&self) -> Vec<OfflineModel> {
        let models = self.config.models.iter().filter(|(_, model)| !model.is_embedding());
        models.map(|(name, model)| self.configured(name, model)).collect()
    }

    /// The two of `WEAK,STRONG`: the weak model counts as local, the strong one as cloud.
    pub(super) fn pair(&self, pair: &str) -> Result<Vec<OfflineModel>, BadInput> {
        let names: Vec<&str> = pair.split(',').map(str::trim).collect();
        let [weak, strong] = names[..] else { return Err(BadInput::Pair(pair.to_owned())) };
        if weak == strong {
            return Err(BadInput::Pair(pair.to_owned()));
        }
        [(weak, Route::Local), (strong, Route::Cloud)]
            .into_iter()
            .map(|(name, route)| Ok(OfflineModel { route, ..self.named(name)? }))
            .collect()
    }

    fn named(&self, name: &str) -> Result<OfflineModel, BadInput> {
        if let Some(model) = self.config.models.get(name).filter(|model| !model.is_embedding()) {
            return Ok(self.configured(name, model));
        }
        let ability = self.adequacy.ability_of(name).ok_or_else(|| {
            let known = self.config.models.keys().chain(self.adequacy.abilities.keys());
            BadInput::PairModel { name: name.to_owned(), near: nearest(name, known) }
        })?;
        Ok(OfflineModel {
            model: name.into(),
            route: Route::Cloud,
            ability,
            capabilities: Capabilities::ALL,
            context_tokens: None,
            energy: Energy::Unknown,
            price: Price::Unknown,
            grid: None,
        })
    }

    fn configured(&self, name: &str, model: &Model) -> OfflineModel {
        let Self { config, adequacy, rates, .. } = self;
        let (model_name, ability) = (name.into(), assemble::ability(name, model, adequacy));
        match &model.engine {
            Engine::Llama { config: llama, .. } => OfflineModel {
                model: model_name,
                route: Route::Local,
                ability,
                capabilities: assemble::LOCAL_CAPABILITIES,
                // Any conversation fits if its oldest turns are dropped.
                context_tokens: Some(llama.context_tokens)
                    .filter(|_| llama.overflow == Overflow::Refuse),
                energy: Energy::Local(Estimator::new(
                    config.energy.prior_cost(),
                    config.energy.cpu_model(),
                    Arc::clone(&self.profile),
                )),
                // The price of electricity depends on the hour, which a file of prompts does not
                // have.
                price: if rates.tariff().is_some() { Price::Unknown } else { Price::Nothing },
                grid: rates.here(),
            },
            Engine::Openai(openai) => OfflineModel {
                model: model_name,
                route: Route::Cloud,
                ability,
                capabilities: Capabilities::ALL,
                context_tokens: openai.context_tokens,
                energy: Energy::Cloud(openai.per_token()),
                price: Price::Upstream(Box::new(openai.clone())),
                grid: rates.elsewhere(openai.carbon_zone.as_deref()),
            },
        }
    }
}

impl OfflineModel {
    pub(super) fn candidate(
        &self,
        text: &TextVector,
        features: &Features,
        adequacy: &AdequacyModel,
    ) -> Candidate {
        let p = adequacy.predict_named(text, &self.model, self.ability);
        // The prior of a gateway that has just started.
        let output_tokens = OutputLength::default().expected(features);
        let (prompt, output) = (u64::from(features.prompt_tokens), u64::from(output_tokens));
        let usage = Usage {
            prompt_tokens: prompt,
            completion_tokens: output,
            total_tokens: prompt + output,
            ..Usage::default()
        };
        let joules = match &self.energy {
            Energy::Unknown => None,
            Energy::Cloud(per_token) => cloud::estimate(*per_token, prompt, 0, output).joules,
            Energy::Local(estimator) => {
                estimator.expected(&self.model, Tokens { prefill: prompt, decode: output }).joules
            }
        };
        Candidate {
            model: Arc::clone(&self.model),
            route: self.route,
            p,
            joules,
            dollars: match &self.price {
                Price::Unknown => None,
                Price::Nothing => Some(Dollars(0.0)),
                Price::Upstream(config) => config.dollars(&usage),
            },
            ttft_ms: None,
            grams: joules
                .zip(self.grid.as_ref())
                .map(|(joules, grid)| grams(joules, grid.grams_per_kwh)),
            output_tokens: Some(output_tokens),
            context_tokens: self.context_tokens,
            capabilities: self.capabilities,
            unavailable: None,
            state: None,
            cache: None,
        }
    }
}
