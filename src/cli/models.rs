//! `wattgate models`: list, search, pull, verify and remove local models.
//!
//! Reads the config, the catalogue and the model directory; loads no model.

mod pull;
mod remove;
mod search;
mod target;
mod verify;

use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use serde::Serialize;

use super::config_args::ConfigArgs;
use super::configured_model::{origin, readiness, route};
use super::console::say;
use super::table::{align_right, wrapped};
use crate::config::{Config, Engine, Model};
use crate::models::{FileState, file_state};

/// List, search, pull, verify or remove local models
#[derive(Args, Debug)]
pub(super) struct ModelsArgs {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Subcommand, Debug)]
enum ModelsCommand {
    List(ListArgs),
    Search(search::SearchArgs),
    Pull(pull::PullArgs),
    Verify(verify::VerifyArgs),
    #[command(name = "rm")]
    Remove(remove::RemoveArgs),
}

/// List the configured models and whether their files are present
#[derive(Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Write the list as JSON to standard output
    #[arg(long)]
    json: bool,
}

/// One row of the list.
#[derive(Serialize)]
struct Row {
    name: String,
    route: &'static str,
    source: String,
    /// Bytes on disk; absent without a file.
    size_bytes: Option<u64>,
    state: String,
}

/// Runs the command and returns its exit code.
pub(super) fn run(args: &ModelsArgs) -> anyhow::Result<u8> {
    match &args.command {
        ModelsCommand::List(args) => list(&args.config.load()?, args.json),
        ModelsCommand::Search(args) => search::run(args),
        ModelsCommand::Pull(args) => pull::run(args),
        ModelsCommand::Verify(args) => verify::run(args),
        ModelsCommand::Remove(args) => remove::run(args),
    }
}

fn list(config: &Config, json: bool) -> anyhow::Result<u8> {
    let rows: Vec<Row> =
        config.models.iter().map(|(name, model)| row(config, name, model)).collect();
    if json {
        say(&serde_json::to_string_pretty(&rows)?);
    } else {
        say(&table(&rows));
    }
    Ok(0)
}

fn row(config: &Config, name: &str, model: &Model) -> Row {
    let size_bytes = match &model.engine {
        Engine::Llama(llama) => {
            match file_state(&llama.source, llama.sha256.as_ref(), &config.model_dir) {
                Ok(FileState::Verified { bytes } | FileState::Unverified { bytes }) => Some(bytes),
                _ => None,
            }
        }
        Engine::Openai(_) => None,
    };
    Row {
        name: name.to_owned(),
        route: route(model).label(),
        source: origin(model),
        size_bytes,
        state: readiness(config, model),
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = wrapped(["name", "route", "source", "size", "state"]);
    for row in rows {
        let size = row.size_bytes.map_or(String::new(), |bytes| HumanBytes(bytes).to_string());
        table.add_row([&row.name, row.route, &row.source, &size, &row.state]);
    }
    align_right(&mut table, &[3]);
    table.trim_fmt()
}
