//! The models that `wattgate route` scores: those of the config as if all were up, or a pair by name.

use std::sync::Arc;

use super::BadInput;
use crate::app::wiring;
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

/// A model that may be chosen, and how its adequacy and energy are predicted.
pub(super) struct Entrant {
    pub(super) model: Arc<str>,
    pub(super) route: Route,
    ability: f64,
    capabilities: Capabilities,
    context_tokens: Option<u32>,
    energy: Energy,
    price: Price,
    /// What feeds it, if carbon is configured.
    grid: Option<Grid>,
}

enum Energy {
    Unknown,
    Cloud(Option<cloud::PerToken>),
    /// What a local model is expected to take by its profile, or is assumed to if it was never measured.
    Local(Estimator),
}

enum Price {
    Unknown,
    /// A local model's.
    Nothing,
    Upstream(Box<upstream::Config>),
}

/// Who may enter, from one config and one router.
pub(super) struct Field<'c> {
    pub(super) config: &'c Config,
    pub(super) adequacy: &'c AdequacyModel,
    pub(super) profile: Arc<Profile>,
    pub(super) rates: Rates,
}

impl Field<'_> {
    /// Every model of the config that answers in text.
    pub(super) fn all(&self) -> Vec<Entrant> {
        let models = self.config.models.iter().filter(|(_, model)| !model.is_embedding());
        models.map(|(name, model)| self.configured(name, model)).collect()
    }

    /// Those of `WEAK,STRONG`: the weak model stands for what is local, the strong one for the cloud.
    pub(super) fn pair(&self, pair: &str) -> Result<Vec<Entrant>, BadInput> {
        let names: Vec<&str> = pair.split(',').map(str::trim).collect();
        let [weak, strong] = names[..] else { return Err(BadInput::Pair(pair.to_owned())) };
        if weak == strong {
            return Err(BadInput::Pair(pair.to_owned()));
        }
        [(weak, Route::Local), (strong, Route::Cloud)]
            .into_iter()
            .map(|(name, route)| Ok(Entrant { route, ..self.named(name)? }))
            .collect()
    }

    fn named(&self, name: &str) -> Result<Entrant, BadInput> {
        if let Some(model) = self.config.models.get(name).filter(|model| !model.is_embedding()) {
            return Ok(self.configured(name, model));
        }
        let ability = self.adequacy.ability_of(name).ok_or_else(|| {
            let known = self.config.models.keys().chain(self.adequacy.abilities.keys());
            BadInput::PairModel { name: name.to_owned(), near: super::nearest(name, known) }
        })?;
        Ok(Entrant {
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

    fn configured(&self, name: &str, model: &Model) -> Entrant {
        let Self { config, adequacy, rates, .. } = self;
        let (model_name, ability) = (name.into(), wiring::ability(name, model, adequacy));
        match &model.engine {
            Engine::Llama(llama) => Entrant {
                model: model_name,
                route: Route::Local,
                ability,
                capabilities: wiring::LOCAL_CAPABILITIES,
                // With its oldest turns left out, any conversation fits.
                context_tokens: Some(llama.context_tokens)
                    .filter(|_| llama.overflow == Overflow::Refuse),
                energy: Energy::Local(Estimator::new(
                    config.energy.prior_cost(),
                    config.energy.cpu_model(),
                    Arc::clone(&self.profile),
                )),
                // Electricity is bought at the price of the hour, which a file of prompts does not tell.
                price: if rates.tariff().is_some() { Price::Unknown } else { Price::Nothing },
                grid: rates.here(),
            },
            Engine::Openai(openai) => Entrant {
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

impl Entrant {
    pub(super) fn candidate(
        &self,
        text: &TextVector,
        features: &Features,
        adequacy: &AdequacyModel,
    ) -> Candidate {
        let p = adequacy.predict_named(text, &self.model, self.ability);
        // Nothing has been seen of any model: the prior of a gateway that has just started.
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
