//! `wattgate check`: says everything that is wrong with a configuration file, or what it amounts to.
//!
//! Reads the file, looks at this machine and starts nothing; `--energy` looks at its sensors. Exit code 0 when it can be served, 2 when it cannot.

use std::fmt::Write;

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use super::{BAD_INPUT, ConfigArgs, energy};
use crate::config::{self, Config, Engine, Model, Problem, Problems};
use crate::models::{Source, State, state};
use crate::routing::Route;

/// Check the configuration file and say everything that is wrong with it
#[derive(Args, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Show what can meter energy on this machine, what is used, and why not the rest
    #[arg(long)]
    energy: bool,
    /// Write the result as JSON to standard output
    #[arg(long)]
    json: bool,
}

/// The result for machines.
#[derive(Serialize)]
struct Report<'a> {
    file: String,
    ok: bool,
    problems: Vec<&'a Problem>,
    warnings: Vec<String>,
}

/// Runs the command and gives its exit code.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to a person")]
pub fn run(args: &CheckArgs) -> anyhow::Result<u8> {
    let loaded = args.config.load();
    if args.energy {
        // Before there is a config, the question is what one would find.
        let unwritten = args.config.is_default() && !args.config.config.exists();
        return match loaded {
            Ok(config) => energy::run(Some(&config), args.json),
            Err(_) if unwritten => energy::run(None, args.json),
            Err(problems) => Err(problems.into()),
        };
    }
    let code = if loaded.is_ok() { 0 } else { BAD_INPUT };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report(args, &loaded))?);
    } else {
        match &loaded {
            Ok(config) => print!("{}", summary(config, &args.config.config.display().to_string())),
            Err(problems) => eprintln!("{problems}"),
        }
    }
    Ok(code)
}

fn report<'a>(args: &CheckArgs, loaded: &'a Result<Config, Problems>) -> Report<'a> {
    let (problems, warnings) = match loaded {
        Ok(config) => (vec![], config::warnings(config)),
        Err(problems) => (problems.iter().collect(), vec![]),
    };
    Report {
        file: args.config.config.display().to_string(),
        ok: loaded.is_ok(),
        problems,
        warnings: warnings.iter().map(ToString::to_string).collect(),
    }
}

fn summary(config: &Config, file: &str) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    for (name, model) in &config.models {
        let state = state_of(config, model);
        table.add_row([name.as_str(), route(model).label(), &origin(model), &state]);
    }
    let policies: Vec<&str> = config.policies.keys().map(String::as_str).collect();
    let mut text = format!(
        "{file} is fine\nlisten    {}\npolicies  {} (default: {})\nmodels\n{}\n",
        config.server.listen,
        policies.join(", "),
        config.routing.default_policy,
        table.trim_fmt(),
    );
    for warning in config::warnings(config) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

pub(super) fn route(model: &Model) -> Route {
    match model.engine {
        Engine::Llama(_) => Route::Local,
        Engine::Openai(_) => Route::Cloud,
    }
}

/// Where the model's file or its answers come from.
pub(super) fn origin(model: &Model) -> String {
    match &model.engine {
        Engine::Llama(config) => config.source.to_string(),
        Engine::Openai(config) => config.base_url.clone(),
    }
}

/// Whether the model could answer on this machine, in a few words.
pub(super) fn state_of(config: &Config, model: &Model) -> String {
    match &model.engine {
        Engine::Llama(llama) => {
            match state(&llama.source, llama.sha256.as_ref(), &config.model_dir) {
                Ok(State::Verified { .. }) => "present".into(),
                Ok(State::Unverified { .. }) => "present, not checked".into(),
                Ok(State::Missing) if matches!(llama.source, Source::File(_)) => "missing".into(),
                Ok(State::Missing) => "not pulled yet".into(),
                Ok(State::Wrong { .. }) => "wrong checksum".into(),
                Err(error) => format!("unreadable: {error}"),
            }
        }
        Engine::Openai(openai) => match &openai.api_key_env {
            Some(variable) if config::is_set(variable) => format!("{variable} is set"),
            Some(variable) => format!("{variable} is not set"),
            None => "needs no key".into(),
        },
    }
}
