//! `wattgate models`: which models there are, bringing their files here, checking them and taking them away.
//!
//! Reads the configuration, the catalogue and the model directory; loads no model.

mod pull;
mod remove;
mod search;
mod target;
mod verify;

use clap::{Args, Subcommand};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use indicatif::HumanBytes;
use serde::Serialize;

use super::check::{origin, route, state_of};
use super::{BAD_INPUT, ConfigArgs};
use crate::config::{Config, Engine, Model};
use crate::models::{State, state};

/// List, find, fetch, check or remove local models
#[derive(Args, Debug)]
pub struct ModelsArgs {
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

/// List the configured models and whether they are here
#[derive(Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Write the list as JSON to standard output
    #[arg(long)]
    json: bool,
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
        ModelsCommand::Search(args) => search::run(args),
        ModelsCommand::Pull(args) => pull::run(args),
        ModelsCommand::Verify(args) => verify::run(args),
        ModelsCommand::Remove(args) => remove::run(args),
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
        Engine::Llama(llama) => {
            match state(&llama.source, llama.sha256.as_ref(), &config.model_dir) {
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
    let mut table = styled_table(["name", "route", "source", "size", "state"]);
    for row in rows {
        let size = row.size_bytes.map_or(String::new(), |bytes| HumanBytes(bytes).to_string());
        table.add_row([&row.name, row.route, &row.source, &size, &row.state]);
    }
    right_aligned(&mut table, &[3]);
    table.trim_fmt()
}

/// Columns under a header, as wide as the terminal lets them be.
fn styled_table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table
}

fn right_aligned(table: &mut Table, columns: &[usize]) {
    for &index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

#[expect(clippy::print_stdout, reason = "a command's result goes to standard output")]
fn elsewhere(name: &str) {
    println!("{name}: runs elsewhere and has no file here");
}

#[expect(clippy::print_stderr, reason = "a command reports bad input itself")]
fn bad_name(error: &target::UnknownModel) -> u8 {
    eprintln!("error: {error}");
    BAD_INPUT
}
