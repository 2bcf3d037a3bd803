//! Validation of a whole configuration: what each table finds in itself, and what only the whole
//! file can know. Pure.

use super::diagnostics::Report;
use super::explain::suggest;
use super::models::{Engine, Model, is_plain_name};
use super::schema::{Config, DEFAULT_POLICY};
use crate::serving::plan::AUTO;
use crate::validate::{Diagnostics, Validate};

impl Validate for Config {
    fn validate(&self, out: &mut Diagnostics) {
        out.table("server", &self.server);
        out.table("admin", &self.admin);
        out.table("engines", &self.engines);
        out.table("energy", &self.energy);
        out.table("judge", &self.judge);
        out.table("sessions", &self.sessions);
        out.inside("policies", |out| {
            for (name, policy) in &self.policies {
                out.table(name, policy);
            }
        });
        out.inside("models", |out| {
            for (name, model) in &self.models {
                out.table(name, model);
            }
        });
    }
}

/// Reports every value that cannot be used.
pub(super) fn validate(config: &Config, report: &mut Report<'_>) {
    let mut out = Diagnostics::default();
    config.validate(&mut out);
    report.add(out);
    if config.models.is_empty() && !report.has_unread(&["models"]) {
        let hint = "add a [models.NAME.llama] or [models.NAME.openai] table; the shipped config.toml shows both";
        let message = "no model is configured";
        report.wrong(&["models"], message, Some(hint.into()));
    }
    check_policies(config, report);
    check_aliases(config, report);
    check_judge(config, report);
    check_prometheus(config, report);
}

fn check_policies(config: &Config, report: &mut Report<'_>) {
    for (name, policy) in &config.policies {
        if !is_plain_name(name, "") {
            let message = format!("`{name}` cannot be a policy's name");
            let hint = "clients ask for it as `auto/NAME`: letters, digits, `.`, `-` and `_` only";
            report.wrong(&["policies", name], message, Some(hint.into()));
        }
        for (class, overrides) in policy.classes.all() {
            if let Some(model) = &overrides.model {
                let path = ["policies", name, "classes", class.label(), "model"];
                check_model_exists(model, config, &path, report);
            }
        }
    }
    let default = config.routing.default_policy.as_str();
    check_policy_exists(default, &["routing", "default_policy"], config, report);
}

fn check_policy_exists(name: &str, path: &[&str], config: &Config, report: &mut Report<'_>) {
    let exists = name == DEFAULT_POLICY || config.policies.contains_key(name);
    if !exists && !report.has_unread(&["policies", name]) {
        let mut known: Vec<&str> = config.policies.keys().map(String::as_str).collect();
        if !known.contains(&DEFAULT_POLICY) {
            known.push(DEFAULT_POLICY);
        }
        report.wrong(path, format!("there is no policy `{name}`"), Some(suggest(name, &known)));
    }
}

fn check_aliases(config: &Config, report: &mut Report<'_>) {
    for (name, meaning) in config.aliases.iter() {
        let path = ["aliases", name];
        if config.models.contains_key(name) {
            let message = format!("`{name}` is a model: its own name goes first");
            report.wrong(&path, message, Some("remove the alias".into()));
        } else if name == AUTO || name.starts_with("auto/") {
            let message = format!("`{name}` already chooses by a policy");
            report.wrong(&path, message, Some("give the alias another name".into()));
        }
        check_alias(name, meaning, &path, config, report);
    }
    for (class, meaning) in config.request_classes.iter() {
        check_alias(class, meaning, &["request_classes", class], config, report);
    }
}

/// A name that can be asked for, and something that can answer.
fn check_alias(name: &str, meaning: &str, path: &[&str], config: &Config, report: &mut Report<'_>) {
    if name.is_empty() || name.strip_suffix('*').unwrap_or(name).contains('*') {
        let hint = "a whole name, or the beginning of names and `*`";
        report.wrong(path, format!("`{name}` cannot be an alias"), Some(hint.into()));
    }
    match meaning.strip_prefix(AUTO) {
        Some("") => {}
        Some(policy) if policy.starts_with('/') => {
            check_policy_exists(&policy[1..], path, config, report);
        }
        _ => check_model_exists(meaning, config, path, report),
    }
}

fn check_judge(config: &Config, report: &mut Report<'_>) {
    let Some(name) = &config.judge.model else { return };
    let path = ["judge", "model"];
    check_model_exists(name, config, &path, report);
    if config.models.get(name).is_some_and(Model::is_embedding) {
        report.wrong(&path, format!("`{name}` gives embeddings and cannot judge"), None);
    }
}

fn check_model_exists(name: &str, config: &Config, path: &[&str], report: &mut Report<'_>) {
    if !config.models.contains_key(name) && !report.has_unread(&["models", name]) {
        let known: Vec<&str> = config.models.keys().map(String::as_str).collect();
        report.wrong(path, format!("there is no model `{name}`"), Some(suggest(name, &known)));
    }
}

/// A query of another machine's energy covers models of other machines only.
fn check_prometheus(config: &Config, report: &mut Report<'_>) {
    let remote = |(name, model): (&'_ String, &'_ Model)| {
        matches!(model.engine, Engine::Openai(_)).then(|| name.clone())
    };
    let remote: Vec<String> = config.models.iter().filter_map(remote).collect();
    for (name, query) in &config.energy.prometheus {
        for model in query.models.iter().filter(|model| !remote.contains(model)) {
            if !report.has_unread(&["models", model]) {
                let path = ["energy", "prometheus", name, "models"];
                let message = format!("`{model}` is not an .openai model");
                report.wrong(&path, message, Some(suggest(model, &remote)));
            }
        }
    }
}
