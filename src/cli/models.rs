//! `wattgate models`: which models there are, and bringing their files here.
//!
//! Reads the configuration and the model directory; loads no model.

use clap::{Args, Subcommand};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use indicatif::HumanBytes;
use serde::Serialize;

use super::ConfigArgs;
use super::check::{origin, route, state_of};
use crate::config::{Config, Engine, Model};
use crate::models::{Progress, State, pull, state};

/// Exit codes of the command line.
const FAILED: u8 = 1;
const BAD_INPUT: u8 = 2;

/// List the configured models, or bring their files to this machine
#[derive(Args, Debug)]
pub struct ModelsArgs {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Subcommand, Debug)]
enum ModelsCommand {
    List(ListArgs),
    Pull(PullArgs),
}

/// List the configured models and whether they are here
#[derive(Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Write the list as JSON to standard output
    #[arg(long)]
    json: bool,
}

/// Fetch and verify model files; what is already here is left alone
#[derive(Args, Debug)]
struct PullArgs {
    /// Models to pull [default: every local model]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// One model as listed.
#[derive(Serialize)]
struct Row {
    name: String,
    route: &'static str,
    source: String,
    /// Bytes on disk; absent when there is no file.
    size_bytes: Option<u64>,
    state: String,
}

/// Runs the command and gives its exit code.
pub fn run(args: &ModelsArgs) -> anyhow::Result<u8> {
    match &args.command {
        ModelsCommand::List(args) => list(&args.config.load()?, args.json),
        ModelsCommand::Pull(args) => Ok(pull_all(&args.config.load()?, &args.names)),
    }
}

#[expect(clippy::print_stdout, reason = "a command's result goes to standard output")]
fn list(config: &Config, json: bool) -> anyhow::Result<u8> {
    let rows: Vec<Row> =
        config.models.iter().map(|(name, model)| row(config, name, model)).collect();
    if json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        println!("{}", table(&rows));
    }
    Ok(0)
}

fn row(config: &Config, name: &str, model: &Model) -> Row {
    let size_bytes = match &model.engine {
        Engine::Llama { source, sha256, .. } => {
            match state(source, sha256.as_ref(), &config.model_dir) {
                Ok(State::Verified { bytes } | State::Unverified { bytes }) => Some(bytes),
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
        state: state_of(config, model),
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["name", "route", "source", "size", "state"]);
    for row in rows {
        let size = row.size_bytes.map_or(String::new(), |bytes| HumanBytes(bytes).to_string());
        table.add_row([&row.name, row.route, &row.source, &size, &row.state]);
    }
    if let Some(size) = table.column_mut(3) {
        size.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

/// Pulls each, past the failures of others.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to a person")]
fn pull_all(config: &Config, names: &[String]) -> u8 {
    if let Some(name) = names.iter().find(|name| !config.models.contains_key(*name)) {
        let known: Vec<&str> = config.models.keys().map(String::as_str).collect();
        eprintln!("error: there is no model `{name}`\nhint: the config has {}", known.join(", "));
        return BAD_INPUT;
    }
    let mut code = 0;
    for (name, model) in &config.models {
        let wanted = names.contains(name);
        match &model.engine {
            Engine::Llama { source, sha256, .. } if wanted || names.is_empty() => {
                let mut progress = Progress::on_stderr();
                let result = pull(source, sha256.as_ref(), &config.model_dir, &mut progress);
                drop(progress);
                match result {
                    Ok(pulled) => {
                        let how = if pulled.fetched { "pulled to" } else { "already there:" };
                        println!("{name}: {how} {}", pulled.path.display());
                    }
                    Err(error) => {
                        let hint = error.hint();
                        eprintln!("error: {name}: {:#}\nhint: {hint}", anyhow::Error::new(error));
                        code = FAILED;
                    }
                }
            }
            Engine::Openai(_) if wanted => println!("{name}: runs elsewhere, nothing to pull"),
            _ => {}
        }
    }
    code
}
