//! Warnings about a valid configuration on this machine: missing model files, keys, a router.
//!
//! The only part of `config` that reads the disk and the environment, and only on request. Of
//! variables it reads only whether they are set.

use std::env;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use super::models::Engine;
use super::schema::Config;
use crate::backends::llama;
use crate::energy::Profile;
use crate::energy::prediction::profile::ModelFile;
use crate::models::{FileState, Sha256, Source, file_state, resolve};
use crate::traffic::audit;

/// Something that does not work until it is corrected; the rest does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The model's file has not been pulled yet.
    NotPulled { model: String },
    /// The model's `file:` does not exist.
    NoFile { model: String, path: PathBuf },
    /// The model's LoRA adapter does not exist.
    NoAdapter { model: String, path: PathBuf },
    /// The checksum of the model's file is not the configured one.
    WrongFile { model: String, actual: Sha256 },
    /// The model's file cannot be read.
    Unreadable { model: String, error: String },
    /// The environment variable of the API key is not set, or empty.
    NoKey {
        model: String,
        /// Which of its deployments, if there are several.
        deployment: Option<String>,
        variable: String,
    },
    /// `routing.router` is not a directory.
    NoRouter { path: PathBuf },
    /// `energy.profile` cannot be used.
    NoProfile { error: String },
    /// The model was profiled with other weights.
    OtherWeights { model: String, measured: ModelFile },
    /// The traffic log is not private, or cannot be written.
    TrafficLog(audit::Finding),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPulled { model } => {
                write!(f, "{model}: model file is missing: run `wattgate models pull {model}`")
            }
            Self::NoFile { model, path } => write!(f, "{model}: {} does not exist", path.display()),
            Self::NoAdapter { model, path } => {
                write!(f, "{model}: LoRA adapter {} does not exist", path.display())
            }
            Self::WrongFile { model, actual } => {
                write!(
                    f,
                    "{model}: file checksum {actual} differs from the configured sha256: run `wattgate models pull {model}`"
                )
            }
            Self::Unreadable { model, error } => {
                write!(f, "{model}: model file cannot be read: {error}")
            }
            Self::NoKey { model, deployment: None, variable } => {
                write!(f, "{model} is inactive: the environment variable {variable} is not set")
            }
            Self::NoKey { model, deployment: Some(deployment), variable } => write!(
                f,
                "{model}: deployment {deployment} is inactive: the environment variable {variable} is not set"
            ),
            Self::NoRouter { path } => {
                write!(f, "routing.router: {} is not a directory", path.display())
            }
            Self::NoProfile { error } => write!(f, "energy.profile: {error}"),
            Self::TrafficLog(finding) => write!(f, "traffic.dir: {finding}"),
            Self::OtherWeights { model, measured } => {
                let ModelFile { source, bytes } = measured;
                write!(
                    f,
                    "energy.profile: {model} was measured with other weights ({source}, {bytes} bytes): run `wattgate measure --models {model}` again"
                )
            }
        }
    }
}

/// All warnings on this machine. Reads no model file.
pub fn warnings(config: &Config) -> Vec<Warning> {
    let router = config.routing.router.iter().filter(|path| !path.is_dir());
    let router = router.map(|path| Warning::NoRouter { path: path.clone() });
    let files = config.models.iter().filter_map(|(name, model)| {
        let model_name = name.clone();
        match &model.engine {
            Engine::Llama(llama) => {
                let found = file_state(&llama.source, llama.sha256.as_ref(), &config.model_dir);
                match (found, &llama.source) {
                    (Ok(FileState::Verified { .. } | FileState::Unverified { .. }), _) => None,
                    (Ok(FileState::Missing), Source::File(path)) => {
                        Some(Warning::NoFile { model: model_name, path: path.clone() })
                    }
                    (Ok(FileState::Missing), _) => Some(Warning::NotPulled { model: model_name }),
                    (Ok(FileState::Wrong { actual }), _) => {
                        Some(Warning::WrongFile { model: model_name, actual })
                    }
                    (Err(error), _) => {
                        Some(Warning::Unreadable { model: model_name, error: error.to_string() })
                    }
                }
            }
            Engine::Openai(_) => None,
        }
    });
    let warnings = router.chain(start_warnings(config)).chain(files);
    warnings.chain(keys(config)).chain(adapters(config)).collect()
}

/// Keys of all deployments that are not set.
fn keys(config: &Config) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for (name, model) in &config.models {
        let Engine::Openai(openai) = &model.engine else { continue };
        let (first, others) = openai.resolved();
        let is_alone = others.is_empty();
        for deployment in std::iter::once(first).chain(others) {
            if let Some(variable) = deployment.api_key_env.as_ref().filter(|name| !is_set(name)) {
                let (model, variable) = (name.clone(), variable.clone());
                let deployment = (!is_alone).then(|| deployment.deployment_name());
                warnings.push(Warning::NoKey { model, deployment, variable });
            }
        }
    }
    warnings
}

/// Warnings that the gateway logs when it starts: about the energy profile and the traffic log.
pub fn start_warnings(config: &Config) -> Vec<Warning> {
    let log = audit::findings(&config.traffic.dir).into_iter().map(Warning::TrafficLog);
    profile_warnings(config).into_iter().chain(log).collect()
}

fn profile_warnings(config: &Config) -> Vec<Warning> {
    let Some(path) = &config.energy.profile else { return Vec::new() };
    let profile = match Profile::of_here(path) {
        Ok(profile) => profile,
        Err(error) => return vec![Warning::NoProfile { error: error.to_string() }],
    };
    let others = profile.models.into_iter().filter_map(|(name, measured)| {
        let measured = measured.file?;
        let here = config.models.get(&name).and_then(|model| weights(config, &model.engine))?;
        (here != measured).then_some(Warning::OtherWeights { model: name, measured })
    });
    others.collect()
}

/// The weights of a local model, if its file exists.
pub fn weights(config: &Config, engine: &Engine) -> Option<ModelFile> {
    let Engine::Llama(llama::Config { source, .. }) = engine else { return None };
    let bytes = fs::metadata(resolve(source, &config.model_dir)).ok()?.len();
    Some(ModelFile { source: source.to_string(), bytes })
}

fn adapters(config: &Config) -> impl Iterator<Item = Warning> + '_ {
    config.models.iter().filter_map(|(name, model)| {
        let Engine::Llama(llama) = &model.engine else { return None };
        let path = llama.lora.as_ref().filter(|path| !path.is_file())?;
        Some(Warning::NoAdapter { model: name.clone(), path: path.clone() })
    })
}

/// Whether the environment variable is set and not empty.
pub fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|value| !value.is_empty())
}
