//! Models that `wattgate route` scores: those of the config as if all were ready, or a pair of
//! names.

use std::sync::Arc;

use super::bad_input::{BadInput, nearest};
use crate::app::wiring;
use crate::backends::cloud as upstream;
use crate::backends::llama::Overflow;
use crate::config::{Config, Engine, Model};
use crate::energy::grid::emissions::Grid;
use crate::energy::grid::rates::Rates;
use crate::energy::prediction::estimate::Estimator;
use crate::energy::{EnergyFigure, Profile, Source, Tokens};
use crate::locality::Locality;
use crate::routing::text::TextVector;
use crate::routing::{AdequacyModel, Candidate, Capabilities, Features, OutputLength, Route};
use crate::serving::pricing::{Billing, Electricity, Work, expected_grams};

/// A model with the means to predict its adequacy and costs.
pub(super) struct OfflineModel {
    pub(super) model: Arc<str>,
    pub(super) route: Route,
    /// As the nearest deployment declares it; `None` if the route says it.
    locality: Option<Locality>,
    ability: f64,
    capabilities: Capabilities,
    context_tokens: Option<u32>,
    billing: OwnedBilling,
    /// The grid that feeds it, if carbon is configured.
    grid: Option<Grid>,
}

/// Origin of its joules and dollars.
enum OwnedBilling {
    Unknown,
    /// By its profile, or by the assumption for models that were never measured.
    Engine {
        estimator: Estimator,
        /// The price of electricity depends on the hour, which a file of prompts does not have.
        has_tariff: bool,
    },
    Upstream(Box<upstream::Config>),
}

impl OwnedBilling {
    fn billing(&self) -> Billing<'_> {
        match self {
            Self::Unknown => Billing::Unknown,
            Self::Engine { .. } => Billing::Engine,
            Self::Upstream(config) => Billing::Upstream(config),
        }
    }

    fn energy(&self, model: &Arc<str>, tokens: Tokens) -> EnergyFigure {
        match self {
            Self::Engine { estimator, .. } => estimator.expected(model, tokens),
            Self::Unknown | Self::Upstream(_) => EnergyFigure::unknown(Source::CloudTable),
        }
    }

    fn electricity(&self) -> Electricity<'_> {
        match self {
            Self::Engine { has_tariff: true, .. } => Electricity::Unknown,
            _ => Electricity::Unpriced,
        }
    }
}

/// The models that may be scored, from one config and one router.
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
            .map(|(name, route)| Ok(OfflineModel { route, locality: None, ..self.named(name)? }))
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
            locality: None,
            ability,
            capabilities: Capabilities::ALL,
            context_tokens: None,
            billing: OwnedBilling::Unknown,
            grid: None,
        })
    }

    fn configured(&self, name: &str, model: &Model) -> OfflineModel {
        let Self { config, adequacy, rates, .. } = self;
        let (model_name, ability) = (name.into(), wiring::ability(name, model, adequacy));
        match &model.engine {
            Engine::Llama(llama) => OfflineModel {
                model: model_name,
                route: Route::Local,
                locality: None,
                ability,
                capabilities: wiring::LOCAL_CAPABILITIES,
                // Any conversation fits if its oldest turns are dropped.
                context_tokens: Some(llama.context_tokens)
                    .filter(|_| llama.overflow == Overflow::Refuse),
                billing: OwnedBilling::Engine {
                    estimator: Estimator::new(
                        config.energy.prior_cost(),
                        config.energy.cpu_model(),
                        Arc::clone(&self.profile),
                    ),
                    has_tariff: rates.tariff().is_some(),
                },
                grid: rates.here(),
            },
            Engine::Openai(openai) => OfflineModel {
                model: model_name,
                route: Route::Cloud,
                locality: Some(openai.nearest()),
                ability,
                capabilities: wiring::cloud_capabilities(openai),
                context_tokens: openai.context_tokens,
                billing: OwnedBilling::Upstream(Box::new(openai.clone())),
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
        let work = Work {
            prompt: features.prompt_tokens.into(),
            generated: output_tokens.into(),
            media: features.needs.media,
            ..Work::default()
        };
        let billing = self.billing.billing();
        let joules =
            billing.expected_joules(work, |tokens| self.billing.energy(&self.model, tokens));
        Candidate {
            model: Arc::clone(&self.model),
            route: self.route,
            locality: self.locality,
            p,
            joules,
            dollars: billing.expected_dollars(work, joules, self.billing.electricity()),
            ttft_ms: None,
            grams: expected_grams(joules, self.grid.as_ref()),
            output_tokens: Some(output_tokens),
            context_tokens: self.context_tokens,
            drops_turns: false,
            capabilities: self.capabilities,
            unavailable: None,
            state: None,
            cache: None,
        }
    }
}
