//! `wattgate router`: which version of the router serves, and what its cascade goes by.
//!
//! Changes what lies in the router's folder and tells a gateway that runs; the rules are `crate::train`'s.

mod cascade;
mod notify;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::config_args::ConfigArgs;
use super::console::{refuse, say};
use super::exit::BAD_INPUT;
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
    /// List the versions of the router and which one serves
    List(Which),
    /// Let the candidate serve; the present router is kept as a version
    ///
    /// The candidate is checked, copied to the versions beside the router, and takes its place in one step. A gateway that
    /// runs here is told; it goes on with the old router if it cannot use the new one.
    Promote(Promote),
    /// Let the version before the present one serve again
    Rollback(Which),
    /// Fit what the first tokens of local answers are worth, from the log
    ///
    /// Learns from verdicts on answers that were shown: let a policy show them all for a while (`threshold = 0`), or ask the
    /// model by its name. `wattgate train --log` does the same for the router that it makes.
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

/// The versions of the router that is meant.
fn versions(which: &Which, config: &Config) -> Option<Versions> {
    let router = which.router.as_ref().or(config.routing.router.as_ref());
    if router.is_none() {
        refuse(
            "the config names no router to replace: give --router DIR, and set `router = \"DIR\"` in [routing]",
        );
    }
    router.map(|router| Versions::of(router))
}

/// Says what serves now, and tells a gateway that runs.
fn finish(
    changed: Result<u32, VersionsError>,
    versions: &Versions,
    config: &Config,
) -> anyhow::Result<u8> {
    match changed {
        Ok(number) => {
            say(&format!("version {number} serves: {}", versions.path(number).display()));
            notify::reload(config.server.listen)
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
        say("no versions yet: `wattgate router promote DIR` makes the first");
    } else {
        say(&table.to_string());
    }
    Ok(0)
}
