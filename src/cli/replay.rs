//! `wattgate replay`: compares policies on the traffic log.
//!
//! Reads the log and the config. Runs no model and changes nothing.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::config_args::ConfigArgs;
use super::console::{note, refuse, say};
use crate::app::wiring;
use crate::config::Config;
use crate::replay::{Replay, Report};
use crate::routing::Policy;
use crate::traffic::{Line, read_log};

/// Bad lines that are printed; the rest are only counted.
const BAD_LINES_SHOWN: u64 = 10;

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
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

/// Result as JSON.
#[derive(Serialize)]
struct Output {
    log: PathBuf,
    #[serde(flatten)]
    report: Report,
    /// Files whose last line is incomplete, as after a kill.
    torn_lines: u64,
    bad_lines: u64,
}

pub(super) fn run(args: &ReplayArgs) -> anyhow::Result<u8> {
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
                    warn(&format!("{}:{line}: {reason}; line skipped", path.display()));
                }
            }
        }
    }
    if bad_lines > BAD_LINES_SHOWN {
        warn(&format!("{} more bad lines skipped", bad_lines - BAD_LINES_SHOWN));
    }
    if torn_lines > 0 {
        warn(&format!("{torn_lines} incomplete line(s) at the end of a file skipped"));
    }
    let report = replay.report();
    if report.requests == 0 {
        return Ok(refuse(&format!("{} holds no request", log.display())));
    }
    show(&Output { log, report, torn_lines, bad_lines }, args.json)?;
    Ok(0)
}

/// Returns the named policies of the config, or all of them.
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
                .ok_or_else(|| format!("no policy `{name}` in the config; its policies: {known}"))
        })
        .collect()
}

fn show(output: &Output, json: bool) -> anyhow::Result<()> {
    if json {
        say(&serde_json::to_string_pretty(output)?);
    } else {
        say(&output.report.to_string());
    }
    Ok(())
}

fn warn(what: &str) {
    note(&format!("warning: {what}"));
}
