//! `wattgate check`: all problems of a configuration file, or a summary of it.
//!
//! Reads the file and this machine, and starts nothing. Exit code 0 if the config can be served,
//! else 2.

mod energy;
mod ready;
mod sandbox;

use std::fmt::Write;
use std::net::SocketAddr;

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use self::sandbox::SandboxReport;
use super::config_args::ConfigArgs;
use super::configured_model::{origin, readiness, route};
use super::console::{note, say};
use super::exit::BAD_INPUT;
use crate::config::{self, Config, Problem, Problems};

/// Check the configuration file and list all of its problems, with file and line
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Show the energy sensors of this machine: which are used, and why the others are not
    #[arg(long)]
    energy: bool,
    /// Ask the running gateway whether it can answer: exit code 0 if it can, else 1
    #[arg(long, conflicts_with_all = ["energy", "json"])]
    ready: bool,
    /// Address of the running gateway [default: the config's `server.listen`]
    #[arg(long, value_name = "ADDR", requires = "ready")]
    listen: Option<SocketAddr>,
    /// Write the result as JSON to standard output
    #[arg(long)]
    json: bool,
}

/// Result as JSON.
#[derive(Serialize)]
struct Report<'a> {
    file: String,
    ok: bool,
    problems: Vec<&'a Problem>,
    warnings: Vec<String>,
    /// Of the engines; absent without local models.
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<SandboxReport>,
}

/// Runs the command and returns its exit code.
pub(super) fn run(args: &CheckArgs) -> anyhow::Result<u8> {
    if args.ready {
        let listen = match args.listen {
            Some(listen) => listen,
            None => args.config.load()?.server.listen,
        };
        return ready::run(listen);
    }
    let loaded = args.config.load();
    if args.energy {
        // Without a config, `--energy` shows what the default config would find.
        let unwritten = args.config.is_default() && !args.config.config.exists();
        return match loaded {
            Ok(config) => energy::run(Some(&config), args.json),
            Err(_) if unwritten => energy::run(None, args.json),
            Err(problems) => Err(problems.into()),
        };
    }
    let code = if loaded.is_ok() { 0 } else { BAD_INPUT };
    if args.json {
        say(&serde_json::to_string_pretty(&report(args, &loaded))?);
    } else {
        match &loaded {
            Ok(config) => say(&summary(config, &args.config.config.display().to_string())),
            Err(problems) => note(&problems.to_string()),
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
        sandbox: loaded.as_ref().ok().and_then(SandboxReport::of),
    }
}

fn summary(config: &Config, file: &str) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    for (name, model) in &config.models {
        let state = readiness(config, model);
        table.add_row([name.as_str(), route(model).label(), &origin(model), &state]);
    }
    let policies: Vec<&str> = config.policies.keys().map(String::as_str).collect();
    let mut text = format!(
        "{file}: ok\nlisten    {}\npolicies  {} (default: {})\nmodels\n{}",
        config.server.listen,
        policies.join(", "),
        config.routing.default_policy,
        table.trim_fmt(),
    );
    if let Some(sandbox) = SandboxReport::of(config) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{sandbox}");
    }
    for warning in config::warnings(config) {
        let _ = write!(text, "\nwarning: {warning}");
    }
    text
}
