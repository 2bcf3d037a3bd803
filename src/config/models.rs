//! The `[models]` section: for each name an ability and exactly one engine.

use serde::Deserialize;

use super::diagnostics::Report;
use super::document::{Document, dotted};
use crate::backends::{cloud, llama};
use crate::validate::{Diagnostics, Validate};

/// `[models.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Entry")]
pub struct Model {
    /// How able it is on the router's logit scale, higher is better. `None`: the router's guess for
    /// its kind.
    pub ability: Option<f64>,
    pub engine: Engine,
}

/// What runs a model.
#[derive(Clone, Debug)]
pub enum Engine {
    /// `[models.NAME.llama]`.
    Llama(llama::Config),
    /// `[models.NAME.openai]`.
    Openai(cloud::Config),
}

/// `[models.NAME]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    ability: Option<f64>,
    llama: Option<llama::Config>,
    openai: Option<cloud::Config>,
}

/// A model with no engine or with two; [`check_names_and_engines`] reports it with a hint.
#[derive(Debug, thiserror::Error)]
#[error("needs exactly one of .llama and .openai")]
struct NotOneEngine;

impl TryFrom<Entry> for Model {
    type Error = NotOneEngine;

    fn try_from(Entry { ability, llama, openai }: Entry) -> Result<Self, NotOneEngine> {
        let engine = match (llama, openai) {
            (Some(llama), None) => Engine::Llama(llama),
            (None, Some(openai)) => Engine::Openai(openai),
            _ => return Err(NotOneEngine),
        };
        Ok(Self { ability, engine })
    }
}

impl Model {
    /// Whether it answers with vectors, and with nothing else.
    pub fn is_embedding(&self) -> bool {
        match &self.engine {
            Engine::Llama(config) => config.embedding,
            Engine::Openai(config) => config.embedding,
        }
    }
}

impl Validate for Model {
    fn validate(&self, out: &mut Diagnostics) {
        out.range_if_set("ability", self.ability, .., "").hint(
            "on the router's logit scale: about -2.5 for a 135M model, 2 for a small cloud model",
        );
        match &self.engine {
            Engine::Llama(config) => out.table("llama", config),
            Engine::Openai(config) => out.table("openai", config),
        }
    }
}

/// Reports models whose name cannot be used, and those without exactly one engine. Works on the
/// document, because a model that fails here cannot be read.
pub(super) fn check_names_and_engines(document: &Document<'_>, report: &mut Report<'_>) {
    for (name, keys) in document.tables_in("models") {
        check_name(name, report);
        let Some(keys) = keys else { continue };
        let path = ["models", name];
        match (keys.contains(&"llama"), keys.contains(&"openai")) {
            (true, true) => report.unreadable_entry(
                &path,
                format!("model `{name}` has both .llama and .openai"),
                Some("keep one; two models may have two names".to_owned()),
            ),
            (false, false) => {
                let table = |engine| dotted(["models", name, engine]);
                let hint = format!("add [{}] or [{}]", table("llama"), table("openai"));
                let message = format!("model `{name}` has neither .llama nor .openai");
                report.unreadable_entry(&path, message, Some(hint));
            }
            _ => {}
        }
    }
}

fn check_name(name: &str, report: &mut Report<'_>) {
    let path = ["models", name];
    if !is_plain_name(name, ":/") {
        let message = format!("`{name}` cannot be a model's name");
        let hint =
            "letters, digits, `.`, `-`, `_`, `:` and `/` only, starting with a letter or digit";
        report.wrong(&path, message, Some(hint.into()));
    } else if name.to_ascii_lowercase().starts_with("auto") {
        let message =
            format!("a model cannot be called `{name}`: names with `auto` choose a policy");
        report.wrong(&path, message, Some("give it another name".into()));
    }
}

/// Whether the name needs no escaping in a URL, a header, a metric label or a path.
pub(super) fn is_plain_name(name: &str, also: &str) -> bool {
    name.len() <= 100
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c) || also.contains(c))
}
