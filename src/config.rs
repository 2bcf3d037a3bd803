//! The configuration file: reads it, validates it, and reports all problems at once.
//!
//! Composes each module's own `Config` and locates and renders what their validation finds. A
//! checked `Config` can be served; what depends on the machine (files, environment variables) is a
//! warning of `wattgate check`, not an error here.

mod diagnostics;
mod document;
mod explain;
mod generate;
mod lenient_de;
mod models;
mod validate;
mod warnings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Deserialize;

use crate::backends::llama;
use crate::energy;
use crate::http::{AdminConfig, Config as ServerConfig};
use crate::routing;
use crate::serving::judge;
use crate::telemetry;
use crate::traffic;

use diagnostics::Report;
use document::Document;

pub use diagnostics::{Problem, Problems};
pub use explain::suggest;
pub use generate::{generate, model_tables};
pub use models::{Engine, Model};
pub use warnings::{Warning, is_set, profile_warnings, warnings, weights};

/// The shipped configuration with every option and its default: `config.toml` at the root of the
/// repository.
pub const SHIPPED: &str = include_str!("../config.toml");

/// The policy that exists even in a file that defines none.
pub const DEFAULT_POLICY: &str = "default";

/// A whole configuration. Made by [`load`] and [`parse`], which validate it.
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
    /// By name, in the order of the file; never empty.
    #[serde(default)]
    pub models: IndexMap<String, Model>,
}

/// The model directory of a configuration that names none.
pub fn default_model_dir() -> PathBuf {
    PathBuf::from("models")
}

/// Reads and validates the file at `path`.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let file_name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| diagnostics::unreadable(&file_name, &error))?;
    let text =
        String::from_utf8(bytes).map_err(|error| diagnostics::not_utf8(&file_name, &error))?;
    parse(&text, &file_name)
}

/// Reads and validates `text`; `file_name` is only for the messages.
pub fn parse(text: &str, file_name: &str) -> Result<Config, Problems> {
    let (document, syntax_errors) = Document::parse(text);
    let mut report = Report::new(file_name, &document);
    if !syntax_errors.is_empty() {
        // Half a tree would only produce false problems.
        explain::syntax(&syntax_errors, &mut report);
        return Err(report.into_problems());
    }
    models::check_names_and_engines(&document, &mut report);
    let config = lenient_de::read::<Config>(&document, &mut report);
    if let Some(config) = &config {
        validate::validate(config, &mut report);
    }
    match config {
        Some(config) if report.is_empty() => Ok(complete(config, &document)),
        _ => Err(report.into_problems()),
    }
}

/// Adds the default policy, and puts the models into the order of the file.
fn complete(mut config: Config, document: &Document<'_>) -> Config {
    config.policies.entry(DEFAULT_POLICY.to_owned()).or_default();
    config.models.sort_by_cached_key(|name, _| document.start_of_key(&["models", name]));
    config
}

#[cfg(test)]
mod tests;
