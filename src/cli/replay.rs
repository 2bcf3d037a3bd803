//! `wattgate replay`: compares policies on the traffic log.
//!
//! Reads the log and the config. Runs no model and changes nothing.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::config_args::ConfigArgs;
use super::console::{note, refuse, say};
use crate::app::wiring;
use crate::config::Config;
use crate::replay::{Diff, Replay, Report, Scenario, html_report, paper};
use crate::routing::Policy;
use crate::traffic::{Line, LogError, Record, read_log};

/// Bad lines that are printed; the rest are only counted.
const BAD_LINES_SHOWN: u64 = 10;
/// The table repeats itself.
const PAPER_SEED: u64 = 1;

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
    /// Show request by request what the second policy would do differently from the first
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with = "policy")]
    diff: Vec<String>,
    /// Repeat the routing experiment of "Intelligence per Watt" instead; needs no log and no config
    #[arg(long, conflicts_with_all = ["log", "policy", "diff", "strict"])]
    paper: bool,
    /// Fail if an estimate is not supported by the log, or if a line of it cannot be read
    #[arg(long)]
    strict: bool,
    /// Also write the result as an HTML page, with a picture
    #[arg(long, value_name = "FILE", conflicts_with_all = ["diff", "paper"])]
    html: Option<PathBuf>,
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
    if args.paper {
        show(&paper::table(PAPER_SEED), args.json)?;
        return Ok(0);
    }
    let config = args.config.load()?;
    let names = if args.diff.is_empty() { &args.policy } else { &args.diff };
    let policies = match policies(&config, names) {
        Ok(policies) => policies,
        Err(unknown) => return Ok(refuse(&unknown)),
    };
    let log = args.log.clone().unwrap_or_else(|| config.traffic.dir.clone());
    let lines = match read_log(&log) {
        Ok(lines) => lines,
        Err(error) => return Ok(refuse(&error.to_string())),
    };
    if let [from, to] = &policies[..]
        && !args.diff.is_empty()
    {
        let scenarios = [from, to].map(|policy| Scenario::Policy(Arc::clone(policy)));
        let mut diff = Diff::default();
        let unread = read(lines, |record| diff.add(record, &scenarios[0], &scenarios[1]))?;
        if diff.requests == 0 {
            return Ok(refuse(&format!("{} holds no request", log.display())));
        }
        show(&diff.finish(), args.json)?;
        return Ok(u8::from(args.strict && unread.any()));
    }
    let mut replay = Replay::new(policies);
    let unread = read(lines, |record| replay.add(record))?;
    let report = replay.report();
    if report.requests == 0 {
        return Ok(refuse(&format!("{} holds no request", log.display())));
    }
    if let Some(path) = &args.html {
        let page = html_report::render(&report, &log.display().to_string())?;
        std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
        note(&format!("{} written", path.display()));
    }
    let lacking = args.strict && (unread.any() || !report.is_supported());
    show(&Output { log, report, torn_lines: unread.torn, bad_lines: unread.bad }, args.json)?;
    Ok(u8::from(lacking))
}

/// Lines of a log that hold no record.
#[derive(Clone, Copy, Debug, Default)]
struct Unread {
    torn: u64,
    bad: u64,
}

impl Unread {
    fn any(self) -> bool {
        self.torn + self.bad > 0
    }
}

/// Hands over every record, and warns of lines that hold none.
fn read(
    lines: impl Iterator<Item = Result<Line, LogError>>,
    mut record: impl FnMut(&Record),
) -> Result<Unread, LogError> {
    let mut unread = Unread::default();
    for line in lines {
        match line? {
            Line::Record(found) => record(&found),
            Line::Annotation(_) => {}
            Line::Torn => unread.torn += 1,
            Line::Bad { path, line, reason } => {
                unread.bad += 1;
                if unread.bad <= BAD_LINES_SHOWN {
                    warn(&format!("{}:{line}: {reason}; line skipped", path.display()));
                }
            }
        }
    }
    if unread.bad > BAD_LINES_SHOWN {
        warn(&format!("{} more bad lines skipped", unread.bad - BAD_LINES_SHOWN));
    }
    if unread.torn > 0 {
        warn(&format!("{} incomplete line(s) at the end of a file skipped", unread.torn));
    }
    Ok(unread)
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

fn show(output: &(impl Serialize + Display), json: bool) -> anyhow::Result<()> {
    if json {
        say(&serde_json::to_string_pretty(output)?);
    } else {
        say(&output.to_string());
    }
    Ok(())
}

impl Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.report.fmt(f)
    }
}

fn warn(what: &str) {
    note(&format!("warning: {what}"));
}
