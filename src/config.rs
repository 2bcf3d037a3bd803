//! The configuration file: reads it, checks all of it, and says everything that is wrong with it at once.
//!
//! Composes each module's own `Config`. A `Config` that exists is one that runs; what depends on the machine (files,
//! variables) is a warning for `wattgate check`, not an error here.

mod document;
mod generate;
mod explain;
mod diagnostics;
mod lenient_de;
mod validate;
mod warnings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Deserialize;

use crate::backends::{cloud, llama};
use crate::energy;
use crate::http::{AdminConfig, Config as ServerConfig};
use crate::models::{Sha256, Source};
use crate::routing;
use crate::serving::judge;
use crate::telemetry;
use crate::traffic;

use diagnostics::Report;
use document::Document;

pub use diagnostics::{Problem, Problems};
pub use explain::suggest;
pub use generate::{generate, model_tables};
pub use warnings::{Warning, is_set, profile_warnings, warnings, weights};

/// The shipped configuration with every option and its default, as `config.toml` at the root of the repository.
pub const SHIPPED: &str = include_str!("../config.toml");

/// The policy that exists even in a file that names none.
pub const DEFAULT_POLICY: &str = "default";

/// A whole, checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where pulled models live. Default `models`, relative to the working directory.
    pub model_dir: PathBuf,
    pub server: ServerConfig,
    pub admin: AdminConfig,
    pub engines: llama::EnginesConfig,
    pub log: telemetry::Config,
    pub energy: energy::Config,
    pub traffic: traffic::Config,
    pub judge: judge::Config,
    pub routing: routing::Config,
    pub sessions: routing::SessionsConfig,
    /// By name; `routing.default_policy` is one of them.
    pub policies: BTreeMap<String, routing::PolicyConfig>,
    /// By name, in the order of the file; never empty.
    pub models: IndexMap<String, Model>,
}

impl Config {
    /// Where models live when no config says otherwise.
    pub fn default_model_dir() -> PathBuf {
        File::default().model_dir
    }
}

/// One model that may answer.
#[derive(Clone, Debug)]
pub struct Model {
    /// How able it is on the router's logit scale, higher is better. `None`: the router's guess for its kind.
    pub ability: Option<f64>,
    pub engine: Engine,
}

impl Model {
    /// It turns texts into vectors and answers nothing else.
    pub fn is_embedding(&self) -> bool {
        match &self.engine {
            Engine::Llama { config, .. } => config.embedding,
            Engine::Openai(config) => config.embedding,
        }
    }
}

/// What runs a model.
#[derive(Clone, Debug)]
pub enum Engine {
    /// `[models.NAME.llama]`, with what its text fields mean.
    Llama { config: llama::Config, source: Source, sha256: Option<Sha256> },
    /// `[models.NAME.openai]`.
    Openai(cloud::Config),
}

/// The file as serde sees it, before anything is known to make sense.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    model_dir: PathBuf,
    server: ServerConfig,
    admin: AdminConfig,
    engines: llama::EnginesConfig,
    log: telemetry::Config,
    energy: energy::Config,
    traffic: traffic::Config,
    judge: judge::Config,
    routing: routing::Config,
    sessions: routing::SessionsConfig,
    policies: BTreeMap<String, routing::PolicyConfig>,
    models: IndexMap<String, Entry>,
}

/// One entry of `[models]`: exactly one of the two tables makes sense.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Entry {
    ability: Option<f64>,
    llama: Option<llama::Config>,
    openai: Option<cloud::Config>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            model_dir: PathBuf::from("models"),
            server: ServerConfig::default(),
            admin: AdminConfig::default(),
            engines: llama::EnginesConfig::default(),
            log: telemetry::Config::default(),
            energy: energy::Config::default(),
            traffic: traffic::Config::default(),
            judge: judge::Config::default(),
            routing: routing::Config::default(),
            sessions: routing::SessionsConfig::default(),
            policies: BTreeMap::new(),
            models: IndexMap::new(),
        }
    }
}

/// Reads and checks the file at `path`.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let file_name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| diagnostics::unreadable(&file_name, &error))?;
    let text =
        String::from_utf8(bytes).map_err(|error| diagnostics::not_utf8(&file_name, &error))?;
    parse(&text, &file_name)
}

/// Checks `text`; `file_name` is only for the messages.
pub fn parse(text: &str, file_name: &str) -> Result<Config, Problems> {
    let (document, syntax_errors) = Document::parse(text);
    let mut report = Report::new(file_name, &document);
    if !syntax_errors.is_empty() {
        // Half a tree would only produce problems that are none.
        explain::syntax(&syntax_errors, &mut report);
        return Err(report.into_problems());
    }
    let file = lenient_de::read::<File>(&document, &mut report);
    let models = file.as_ref().map(|file| validate::validate(file, &document, &mut report));
    match (file, models) {
        (Some(file), Some(models)) if report.is_empty() => Ok(file.into_config(models)),
        _ => Err(report.into_problems()),
    }
}

impl File {
    fn into_config(mut self, models: IndexMap<String, Model>) -> Config {
        self.policies.entry(DEFAULT_POLICY.to_owned()).or_default();
        Config {
            model_dir: self.model_dir,
            server: self.server,
            admin: self.admin,
            engines: self.engines,
            log: self.log,
            energy: self.energy,
            traffic: self.traffic,
            judge: self.judge,
            routing: self.routing,
            sessions: self.sessions,
            policies: self.policies,
            models,
        }
    }
}

#[cfg(test)]
mod tests;
