//! The tables of a configuration file: each module's own `Config`, composed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use indexmap::IndexMap;
use serde::Deserialize;

use super::models::Model;
use crate::backends::llama;
use crate::energy;
use crate::http::{AdminConfig, Config as ServerConfig};
use crate::routing;
use crate::serving::judge;
use crate::telemetry;
use crate::traffic;

/// The policy that exists even in a file that defines none.
pub const DEFAULT_POLICY: &str = "default";

/// A whole configuration. `config::load` and `config::parse` validate it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where pulled models are stored. Default `models`, relative to the working directory.
    #[serde(default = "default_model_dir")]
    pub model_dir: PathBuf,
    #[serde(default)]
    pub server: ServerConfig,
    #[serde(default)]
    pub admin: AdminConfig,
    #[serde(default)]
    pub engines: llama::EnginesConfig,
    #[serde(default)]
    pub log: telemetry::Config,
    #[serde(default)]
    pub energy: energy::Config,
    #[serde(default)]
    pub traffic: traffic::Config,
    #[serde(default)]
    pub judge: judge::Config,
    #[serde(default)]
    pub routing: routing::Config,
    #[serde(default)]
    pub sessions: routing::SessionsConfig,
    /// By name; `routing.default_policy` is one of them.
    #[serde(default)]
    pub policies: BTreeMap<String, routing::PolicyConfig>,
    /// Other names of models and policies. Default none.
    #[serde(default)]
    pub aliases: routing::Aliases,
    /// Models and policies by what an agent's request is for. Default none.
    #[serde(default)]
    pub request_classes: routing::Aliases,
    /// By name, in the order of the file; never empty.
    #[serde(default)]
    pub models: IndexMap<String, Model>,
}

/// The model directory of a configuration that names none.
pub fn default_model_dir() -> PathBuf {
    PathBuf::from("models")
}
