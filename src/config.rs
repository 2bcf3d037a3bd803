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
mod schema;
mod validate;
mod warnings;

use std::path::Path;

use diagnostics::Report;
use document::Document;

pub use diagnostics::{Problem, Problems};
pub use explain::suggest;
pub use generate::{generate, model_tables};
pub use models::{Engine, Model};
pub use schema::{Config, DEFAULT_POLICY, default_model_dir};
pub use warnings::{Warning, is_set, start_warnings, warnings, weights};

/// The shipped configuration with every option and its default: `config.toml` at the root of the
/// repository.
pub const SHIPPED: &str = include_str!("../config.toml");

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
