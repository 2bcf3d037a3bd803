//! The wiring of models and policies: from the configuration to what serves.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use indexmap::IndexMap;
use sha2::Digest;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::error::AppError;
use super::idle_unloader::{IdleUnloader, OnDemand};
use super::observe::Observer;
use crate::backends::cloud::{self, ApiKey, CapabilitiesConfig, CloudBackend};
use crate::backends::llama::{self, LoadWhen, MemoryBudget, Overflow};
use crate::config::{self, Config, Engine};
use crate::energy::MeterHandle;
use crate::locality::Locality;
use crate::models::{self, FileState, Sha256, Source};
use crate::routing::{AdequacyError, AdequacyModel, Capabilities, Policy, PolicyConfig, Route};
use crate::serving::conversations::sessions::Conversations;
use crate::serving::judge::queue::{JudgeJob, JudgeQueue};
use crate::serving::models::deployment::{Deployment, Kind, MeteredBy};
use crate::serving::models::online_stats::{OnlineStats, RecentMean};
use crate::serving::models::router_handle::{AbilitySource, RouterHandle, Routers};
use crate::serving::snapshot::Snapshot;
use crate::serving::{Model, Router};
use crate::shares::Share;
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
    Capabilities { media: false, raw_details: false, upstream_fields: false, ..Capabilities::ALL };

/// Shared parts of all models.
pub struct Parts {
    pub meter: MeterHandle,
    pub metrics: Arc<Metrics>,
    pub engine_binary: PathBuf,
    /// Memory budget of all engines together.
    pub residency: Arc<MemoryBudget>,
    pub cpu: llama::CpuCode,
    pub sandbox: llama::Sandbox,
    /// The part of a model's places that one client may take.
    pub client_share: Share,
    /// Stops the engines.
    pub stop: CancellationToken,
}

/// Builds every model; supervisors of local ones run in `engines`.
pub fn router(
    config: &Config,
    parts: &Parts,
    engines: &mut JoinSet<()>,
) -> Result<Router, AppError> {
    let mut models = IndexMap::with_capacity(config.models.len());
    for (name, model) in &config.models {
        let name: Arc<str> = name.as_str().into();
        let model = match &model.engine {
            Engine::Llama(llama) => {
                warn_of_file(&name, &llama.source, llama.sha256.as_ref(), &config.model_dir);
                let gguf = models::resolve(&llama.source, &config.model_dir);
                local(name, llama, gguf, parts, engines)
            }
            Engine::Openai(openai) => cloud(name, openai, parts)?,
        };
        models.insert(Arc::clone(&model.name), Arc::new(model));
    }
    let handle = router_handle(config);
    let Routers { router, shadow } = handle.load()?;
    let snapshot = Snapshot {
        models,
        policies: policies(config),
        aliases: Arc::new(config.aliases.clone()),
        request_classes: Arc::new(config.request_classes.clone()),
        default_policy: config.routing.default_policy.as_str().into(),
        own_network_is_local: config.routing.own_network_is_local,
        router,
        shadow,
    };
    let conversations = Conversations::new(&config.sessions);
    Ok(Router::new(snapshot, handle, parts.meter.clone(), conversations))
}

/// The unloader of idle models that are loaded on demand.
pub fn idle_unloader(config: &Config, parts: &Parts, router: &Router) -> IdleUnloader {
    let on_demand = |model: &Arc<Model>| {
        let Kind::Local { control, .. } = &model.primary.kind else { return None };
        let Engine::Llama(config) = &config.models.get(&*model.name)?.engine else {
            return None;
        };
        (config.load == LoadWhen::OnDemand).then(|| OnDemand {
            name: Arc::clone(&model.name),
            control: control.clone(),
            warm_watts: config.warm_watts.map(Watts),
        })
    };
    IdleUnloader {
        config: config.engines.clone(),
        residency: Arc::clone(&parts.residency),
        meter: parts.meter.clone(),
        models: router.snapshot().models.values().filter_map(on_demand).collect(),
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
fn router_handle(config: &Config) -> RouterHandle {
    let source = |(name, model): (&String, &config::Model)| {
        (name.as_str().into(), ability_source(name, model))
    };
    let sources = config.models.iter().map(source).collect();
    let routing = &config.routing;
    RouterHandle::new(routing.router.clone(), routing.candidate.clone(), sources)
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

/// The configured ability; else that of the model of this name in the training data; else a
/// cautious default.
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
    match models::file_state(source, sha256, model_dir) {
        Ok(FileState::Verified { .. } | FileState::Unverified { .. }) => {}
        Ok(FileState::Missing) => tracing::warn!(
            model.name = name,
            "{name}: model file is missing: run `wattgate models pull {name}`; until then other models answer",
        ),
        Ok(FileState::Wrong { actual }) => tracing::warn!(
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
    parts.meter.uses_cards(&name, llama.gpu_layers > 0);
    let observer = Observer::new(parts.meter.clone(), Arc::clone(&parts.metrics), &name);
    let fingerprint = fingerprint(&gguf);
    let model = llama::LocalModel {
        name: Arc::clone(&name),
        config: llama.clone(),
        gguf,
        binary: parts.engine_binary.clone(),
        cpu: parts.cpu,
        sandbox: parts.sandbox,
    };
    let (backend, supervisor) =
        llama::local_model(model, Arc::new(observer), Arc::clone(&parts.residency));
    let backend = backend.sharing(parts.client_share);
    engines.spawn(supervisor.run(parts.stop.clone()));
    let deployment = Deployment {
        name: "engine".into(),
        kind: Kind::Local { engine: backend.state(), control: backend.control() },
        backend: Arc::new(backend),
        locality: Locality::OnHost,
        metered_by: MeteredBy::Engine,
        api_key_missing: false,
    };
    Model {
        series: series(&parts.metrics, &name, Route::Local),
        name,
        primary: Arc::new(deployment),
        others: Vec::new(),
        capabilities: if llama.embedding { Capabilities::EMBEDDINGS } else { LOCAL_CAPABILITIES },
        drops_oldest_turns: llama.overflow == Overflow::DropOldestTurns,
        fingerprint: Some(fingerprint),
        stats: OnlineStats::default(),
        slowdown: RecentMean::default(),
    }
}

/// The `system_fingerprint` of a model's answers: of its file, as far as name and size tell, and of
/// the program.
fn fingerprint(gguf: &Path) -> Arc<str> {
    let bytes = std::fs::metadata(gguf).map_or(0, |file| file.len());
    let file = gguf.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    let digest = sha2::Sha256::digest(format!("{} {file} {bytes}", env!("CARGO_PKG_VERSION")));
    format!("fp_{:x}", Bytes::copy_from_slice(&digest[..6])).into()
}

fn cloud(name: Arc<str>, config: &cloud::Config, parts: &Parts) -> Result<Model, AppError> {
    let metered = parts.meter.meters_elsewhere(&name);
    let (own, further) = config.resolved();
    let alone = further.is_empty();
    let share = parts.client_share;
    let deployment = |config| upstream(&name, config, metered, alone, share).map(Arc::new);
    Ok(Model {
        series: series(&parts.metrics, &name, Route::Cloud),
        primary: deployment(own)?,
        others: further.into_iter().map(deployment).collect::<Result<_, _>>()?,
        capabilities: cloud_capabilities(config),
        drops_oldest_turns: false,
        fingerprint: None,
        stats: OnlineStats::default(),
        slowdown: RecentMean::default(),
        name,
    })
}

/// What a cloud model can do, as it was configured.
pub fn cloud_capabilities(config: &cloud::Config) -> Capabilities {
    if config.embedding {
        return Capabilities::EMBEDDINGS;
    }
    let CapabilitiesConfig { tools, schema, media, logprobs, choices } = config.capabilities;
    Capabilities { tools, schema, media, logprobs, choices, ..Capabilities::ALL }
}

/// One deployment. A meter that covers the model covers its deployments, but no third party's
/// beside the operator's own.
fn upstream(
    name: &Arc<str>,
    config: cloud::Config,
    metered: bool,
    alone: bool,
    share: Share,
) -> Result<Deployment, AppError> {
    let key = api_key(name, &config);
    let backend = CloudBackend::sharing(Arc::clone(name), config.clone(), key.as_ref(), share)?;
    let label = config.deployment_name();
    if let Some(variable) = backend.missing_key() {
        tracing::warn!(
            model.name = %name,
            deployment = label,
            "{name} is inactive: set {variable} to its API key and restart; until then other models answer",
        );
    }
    let covered = metered && (alone || config.locality != Locality::ThirdParty);
    Ok(Deployment {
        name: label.into(),
        api_key_missing: backend.missing_key().is_some(),
        locality: config.locality,
        metered_by: if covered { MeteredBy::Remote } else { MeteredBy::Table },
        kind: Kind::Cloud(Box::new(config)),
        backend: Arc::new(backend),
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
