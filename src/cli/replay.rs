//! `wattgate replay`: compares policies over the traffic log.
//!
//! Reads the log and the configuration, prints the comparison. Runs no model and changes nothing.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::{BAD_INPUT, ConfigArgs};
use crate::app::wiring;
use crate::config::Config;
use crate::replay::{Replay, Report};
use crate::routing::Policy;
use crate::traffic::{Line, read_log};

/// Bad lines that are shown; the rest are only counted.
const BAD_LINES_SHOWN: u64 = 10;

#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Log file, or folder of log files [default: `traffic.dir` of the config]
    #[arg(long, value_name = "PATH")]
    log: Option<PathBuf>,
    /// Replay only this policy; may be repeated [default: every policy of the config]
    #[arg(long, value_name = "NAME")]
    policy: Vec<String>,
    /// Write the result as JSON to standard output
    #[arg(long)]
    json: bool,
}

/// The result for machines.
#[derive(Serialize)]
struct Output {
    log: PathBuf,
    #[serde(flatten)]
    report: Report,
    /// Files whose last line was cut short, as a kill leaves them.
    torn_lines: u64,
    bad_lines: u64,
}

pub fn run(args: &ReplayArgs) -> anyhow::Result<u8> {
    let config = args.config.load()?;
    let policies = match policies(&config, &args.policy) {
        Ok(policies) => policies,
        Err(unknown) => return Ok(refuse(&unknown)),
    };
    let log = args.log.clone().unwrap_or_else(|| config.traffic.dir.clone());
    let lines = match read_log(&log) {
        Ok(lines) => lines,
        Err(error) => return Ok(refuse(&error.to_string())),
    };
    let mut replay = Replay::new(policies);
    let (mut torn_lines, mut bad_lines) = (0, 0);
    for line in lines {
        match line? {
            Line::Record(record) => replay.add(&record),
            Line::Annotation(_) => {}
            Line::Torn => torn_lines += 1,
            Line::Bad { path, line, reason } => {
                bad_lines += 1;
                if bad_lines <= BAD_LINES_SHOWN {
                    warn(&format!("left out {}:{line}: {reason}", path.display()));
                }
            }
        }
    }
    if bad_lines > BAD_LINES_SHOWN {
        warn(&format!("left out {} more bad lines", bad_lines - BAD_LINES_SHOWN));
    }
    if torn_lines > 0 {
        warn(&format!("left out {torn_lines} line(s) cut short at the end of a file"));
    }
    let report = replay.report();
    if report.requests == 0 {
        return Ok(refuse(&format!("{} holds no request", log.display())));
    }
    show(&Output { log, report, torn_lines, bad_lines }, args.json)?;
    Ok(0)
}

/// The policies of the config, or those of them that are named.
fn policies(config: &Config, names: &[String]) -> Result<Vec<Arc<Policy>>, String> {
    let mut configured = wiring::policies(config);
    if names.is_empty() {
        return Ok(configured.into_values().collect());
    }
    let known = configured.keys().map(AsRef::as_ref).collect::<Vec<&str>>().join(", ");
    names
        .iter()
        .map(|name| {
            configured
                .remove(name.as_str())
                .ok_or_else(|| format!("no policy `{name}` in the config; there are: {known}"))
        })
        .collect()
}

#[expect(clippy::print_stdout, reason = "a command's result goes to standard output")]
fn show(output: &Output, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(output)?);
    } else {
        println!("{}", output.report);
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a command's complaints go to standard error")]
fn warn(what: &str) {
    eprintln!("warning: {what}");
}

#[expect(clippy::print_stderr, reason = "a command's complaints go to standard error")]
fn refuse(what: &str) -> u8 {
    eprintln!("error: {what}");
    BAD_INPUT
}
