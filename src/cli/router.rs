//! `wattgate router`: versions of the router, and the fit of its cascade.
//!
//! Changes the router's folder and notifies the running gateway. `crate::train` has the rules.

mod cascade;
mod notify;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::config_args::ConfigArgs;
use super::console::{refuse, say};
use super::exit::BAD_INPUT;
use super::running_gateway::Listen;
use super::table::plain;
use crate::config::Config;
use crate::train::versions::{Versions, VersionsError};

#[derive(Debug, Args)]
pub(super) struct RouterArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the versions of the router and the one that serves
    List(Which),
    /// Make the candidate serve; the current router is kept as a version
    ///
    /// The candidate is checked, copied to the versions next to the router, and put in place in one
    /// step. A gateway that runs here reloads it, or keeps the current router if it cannot use the
    /// new one.
    Promote(Promote),
    /// Make the previous version serve again
    Rollback(Which),
    /// Fit the cascade's confidence in the first tokens of local answers, from the log
    ///
    /// Learns from verdicts on answers that were shown: let a policy show all of them for a while
    /// (`threshold = 0`), or request the model by its name. `wattgate train --log` does the same
    /// for the router that it trains.
    FitCascade(cascade::FitArgs),
}

#[derive(Debug, Args)]
struct Which {
    #[command(flatten)]
    config: ConfigArgs,
    /// The router's folder [default: `routing.router` of the config]
    #[arg(long, value_name = "DIR")]
    router: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Promote {
    /// The folder to promote [default: `routing.candidate` of the config]
    #[arg(value_name = "DIR")]
    candidate: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
}

pub(super) fn run(args: &RouterArgs) -> anyhow::Result<u8> {
    match &args.command {
        Command::List(which) => list(which),
        Command::Promote(args) => promote(args),
        Command::Rollback(which) => {
            let config = which.config.load()?;
            let Some(versions) = versions(which, &config) else { return Ok(BAD_INPUT) };
            finish(versions.roll_back(), &versions, &config)
        }
        Command::FitCascade(args) => cascade::run(args),
    }
}

fn promote(args: &Promote) -> anyhow::Result<u8> {
    let config = args.which.config.load()?;
    let Some(candidate) = args.candidate.as_ref().or(config.routing.candidate.as_ref()) else {
        return Ok(refuse("name the folder to promote, or set `candidate` in [routing]"));
    };
    let Some(versions) = versions(&args.which, &config) else { return Ok(BAD_INPUT) };
    finish(versions.promote(candidate), &versions, &config)
}

/// Versions of the router that the arguments or the config name.
fn versions(which: &Which, config: &Config) -> Option<Versions> {
    let router = which.router.as_ref().or(config.routing.router.as_ref());
    if router.is_none() {
        refuse("no router to replace: use --router DIR, or set `router = \"DIR\"` in [routing]");
    }
    router.map(|router| Versions::of(router))
}

/// Prints the version that serves, and notifies the running gateway.
fn finish(
    changed: Result<u32, VersionsError>,
    versions: &Versions,
    config: &Config,
) -> anyhow::Result<u8> {
    match changed {
        Ok(number) => {
            say(&format!("version {number} serves: {}", versions.path(number).display()));
            notify::reload(&Listen::for_orders(config))
        }
        Err(error @ VersionsError::Io { .. }) => Err(error.into()),
        Err(error) => Ok(refuse(&error.to_string())),
    }
}

fn list(which: &Which) -> anyhow::Result<u8> {
    let config = which.config.load()?;
    let Some(versions) = versions(which, &config) else { return Ok(BAD_INPUT) };
    let current = versions.current();
    let mut table = plain(["", "version", "folder"]);
    for number in versions.all()? {
        let mark = if Some(number) == current { "serves" } else { "" };
        table.add_row([mark, &number.to_string(), &versions.path(number).display().to_string()]);
    }
    if table.is_empty() {
        say("no versions yet: `wattgate router promote DIR` creates the first one");
    } else {
        say(&table.to_string());
    }
    Ok(0)
}
