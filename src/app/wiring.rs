//! The wiring of models and policies: from the configuration to what serves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::AppError;
use super::observe::Observer;
use super::warmth::{OnDemand, Warmth};
use crate::backends::cloud::{self, ApiKey, CloudBackend};
use crate::backends::llama::{self, LoadWhen, Overflow, Residency};
use crate::config::{self, Config, Engine};
use crate::energy::MeterHandle;
use crate::models::{self, Sha256, Source, State};
use crate::routing::{AdequacyError, AdequacyModel, Capabilities, Policy, PolicyConfig, Route};
use crate::serving::conversations::sessions::Conversations;
use crate::serving::judge::queue::{JudgeJob, JudgeQueue};
use crate::serving::models::online_stats::{OnlineStats, RecentMean};
use crate::serving::models::router_handle::{AbilitySource, LoadRouterError, RouterHandle};
use crate::serving::{Kind, Model, Router};
use crate::telemetry::metrics::ModelLabels;
use crate::telemetry::{Metrics, ModelSeries};
use crate::units::Watts;

/// Ability of an unrated local model: below the average of the router's data, so that few prompts
/// are routed to it.
const LOCAL_ABILITY_GUESS: f64 = -1.5;
/// Ability of an unrated cloud model: above the average of the router's data.
const CLOUD_ABILITY_GUESS: f64 = 1.0;

/// Capabilities of local models that answer in text.
pub const LOCAL_CAPABILITIES: Capabilities =
    Capabilities { media: false, raw_details: false, ..Capabilities::ALL };

/// Shared parts of all models.
pub struct Parts {
    pub meter: MeterHandle,
    pub metrics: Arc<Metrics>,
    pub engine_binary: PathBuf,
    /// Memory budget of all engines together.
    pub residency: Arc<Residency>,
    /// Stops the engines.
    pub stop: CancellationToken,
}

/// Builds every model; supervisors of local ones run in `engines`.
pub fn router(
    config: &Config,
    parts: &Parts,
    engines: &mut JoinSet<()>,
) -> Result<Router, AppError> {
    let mut models = Vec::with_capacity(config.models.len());
    for (name, model) in &config.models {
        let name: Arc<str> = name.as_str().into();
        models.push(match &model.engine {
            Engine::Llama(llama) => {
                warn_of_file(&name, &llama.source, llama.sha256.as_ref(), &config.model_dir);
                let gguf = models::resolve(&llama.source, &config.model_dir);
                local(name, llama, gguf, parts, engines)
            }
            Engine::Openai(openai) => cloud(name, openai, &parts.metrics)?,
        });
    }
    Ok(Router {
        models,
        meter: parts.meter.clone(),
        handle: router_handle(config)?,
        policies: policies(config),
        default_policy: config.routing.default_policy.as_str().into(),
        conversations: Conversations::new(&config.sessions),
    })
}

/// The unloader of idle models that are loaded on demand.
pub fn warmth(config: &Config, parts: &Parts, router: &Router) -> Warmth {
    let on_demand = |model: &Model| {
        let Kind::Local { control, .. } = &model.kind else { return None };
        let Engine::Llama(config) = &config.models.get(&*model.name)?.engine else {
            return None;
        };
        (config.load == LoadWhen::OnDemand).then(|| OnDemand {
            name: Arc::clone(&model.name),
            control: control.clone(),
            warm_watts: config.warm_watts.map(Watts),
        })
    };
    Warmth {
        config: config.engines.clone(),
        residency: Arc::clone(&parts.residency),
        meter: parts.meter.clone(),
        models: router.models.iter().filter_map(on_demand).collect(),
    }
}

/// The configured router, or the one built in.
pub fn adequacy(config: &Config) -> Result<AdequacyModel, AdequacyError> {
    match &config.routing.router {
        Some(dir) => AdequacyModel::load(dir),
        None => AdequacyModel::built_in(),
    }
}

/// The handle of the serving router and of its candidate.
fn router_handle(config: &Config) -> Result<RouterHandle, LoadRouterError> {
    let ratings = config.models.iter().map(|(name, model)| ability_source(name, model)).collect();
    RouterHandle::load(config.routing.router.clone(), config.routing.candidate.clone(), ratings)
}

/// The judge's queue and its receiving end; `None` if no answer is to be judged.
pub fn judge(config: &Config) -> Option<(JudgeQueue, Receiver<JudgeJob>)> {
    let judge = config.judge.model.as_ref().filter(|_| config.judge.share > 0.0)?;
    Some(JudgeQueue::new(config.judge.clone(), judge.as_str().into()))
}

/// The policies by name, as the router applies them.
pub fn policies(config: &Config) -> BTreeMap<Arc<str>, Arc<Policy>> {
    let policy = |(name, config): (&String, &PolicyConfig)| {
        let name: Arc<str> = name.as_str().into();
        (Arc::clone(&name), Arc::new(Policy { name, config: config.clone() }))
    };
    config.policies.iter().map(policy).collect()
}

/// The configured ability; else that of the model of this name in the training data; else a cautious
/// default.
pub fn ability(name: &str, model: &config::Model, adequacy: &AdequacyModel) -> f64 {
    ability_source(name, model).ability(adequacy)
}

fn ability_source(name: &str, model: &config::Model) -> AbilitySource {
    let (known_as, guess) = match &model.engine {
        Engine::Llama(_) => (name, LOCAL_ABILITY_GUESS),
        Engine::Openai(openai) => (openai.model.as_deref().unwrap_or(name), CLOUD_ABILITY_GUESS),
    };
    AbilitySource { configured: model.ability, known_as: known_as.to_owned(), guess }
}

/// Logs a model file that is missing or differs from its checksum, without reading it.
fn warn_of_file(name: &str, source: &Source, sha256: Option<&Sha256>, model_dir: &Path) {
    match models::state(source, sha256, model_dir) {
        Ok(State::Verified { .. } | State::Unverified { .. }) => {}
        Ok(State::Missing) => tracing::warn!(
            model.name = name,
            "{name}: model file is missing: run `wattgate models pull {name}`; until then other models answer",
        ),
        Ok(State::Wrong { actual }) => tracing::warn!(
            model.name = name,
            sha256 = %actual,
            "{name}: file checksum differs from the configured sha256: run `wattgate models pull {name}`",
        ),
        Err(error) => {
            tracing::warn!(model.name = name, "{name}: model file cannot be read: {error}");
        }
    }
}

fn local(
    name: Arc<str>,
    llama: &llama::Config,
    gguf: PathBuf,
    parts: &Parts,
    engines: &mut JoinSet<()>,
) -> Model {
    let observer =
        Arc::new(Observer { meter: parts.meter.clone(), metrics: Arc::clone(&parts.metrics) });
    let (backend, supervisor) = llama::local_model(
        Arc::clone(&name),
        llama.clone(),
        gguf,
        parts.engine_binary.clone(),
        observer,
        Arc::clone(&parts.residency),
    );
    engines.spawn(supervisor.run(parts.stop.clone()));
    Model {
        series: series(&parts.metrics, &name, Route::Local),
        name,
        kind: Kind::Local { engine: backend.state(), control: backend.control() },
        backend: Arc::new(backend),
        capabilities: if llama.embedding { Capabilities::EMBEDDINGS } else { LOCAL_CAPABILITIES },
        api_key_missing: false,
        drops_oldest_turns: llama.overflow == Overflow::DropOldestTurns,
        stats: OnlineStats::default(),
        slowdown: RecentMean::default(),
    }
}

fn cloud(name: Arc<str>, config: &cloud::Config, metrics: &Metrics) -> Result<Model, AppError> {
    let backend = CloudBackend::new(Arc::clone(&name), config.clone(), api_key(&name, config))?;
    if let Some(variable) = backend.missing_key() {
        tracing::warn!(
            model.name = %name,
            "{name} is inactive: set {variable} to its API key and restart; until then other models answer",
        );
    }
    Ok(Model {
        series: series(metrics, &name, Route::Cloud),
        name,
        api_key_missing: backend.missing_key().is_some(),
        kind: Kind::Cloud(Box::new(config.clone())),
        backend: Arc::new(backend),
        capabilities: if config.embedding { Capabilities::EMBEDDINGS } else { Capabilities::ALL },
        drops_oldest_turns: false,
        stats: OnlineStats::default(),
        slowdown: RecentMean::default(),
    })
}

fn series(metrics: &Metrics, model: &Arc<str>, route: Route) -> ModelSeries {
    let labels = ModelLabels { model: Arc::clone(model), route: route.label() };
    ModelSeries::new(metrics, &labels)
}

/// The API key in its environment variable; `None` if it is not set or not a valid key.
fn api_key(name: &str, config: &cloud::Config) -> Option<ApiKey> {
    let secret = std::env::var(config.api_key_env.as_deref()?).ok()?;
    ApiKey::new(&secret).inspect_err(|error| tracing::warn!(model.name = %name, "{error}")).ok()
}
