//! `wattgate log`: shows, counts, checks and exports the traffic log.
//!
//! Reads only. Prompts are shown by `cat` and `export` alone, and only if the log holds them.

mod line;
mod stats;
mod tail;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::config_args::ConfigArgs;
use super::console::{note, refuse, say};
use super::exit::FAILED;
use crate::traffic::census::Census;
use crate::traffic::export::{self, Vocabulary};
use crate::traffic::{Line, LogError, Record, read_log};

#[derive(Debug, Args)]
pub(super) struct LogArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Log file, or folder of log files [default: `traffic.dir` of the config]
    #[arg(long, value_name = "PATH", global = true)]
    log: Option<PathBuf>,
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Show the last requests, a line each
    Tail {
        /// Requests to show
        #[arg(short = 'n', long, default_value_t = 20, value_name = "NUMBER")]
        lines: usize,
        /// Go on with new requests until interrupted
        #[arg(short, long)]
        follow: bool,
    },
    /// Write every record as JSON, with its label joined
    Cat,
    /// Count requests, tokens, energy and price by model
    Stats {
        /// Write the counts as JSON
        #[arg(long)]
        json: bool,
    },
    /// Check every line: torn, invalid, twice, or out of time
    Verify {
        /// Write the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write every record as JSON under another product's column names
    Export {
        /// Whose names
        #[arg(long = "as", value_name = "NAMES")]
        names: Names,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Names {
    Litellm,
    Openinference,
    Helicone,
}

impl From<Names> for Vocabulary {
    fn from(names: Names) -> Self {
        match names {
            Names::Litellm => Self::Litellm,
            Names::Openinference => Self::Openinference,
            Names::Helicone => Self::Helicone,
        }
    }
}

pub(super) fn run(args: &LogArgs) -> anyhow::Result<u8> {
    let path = match &args.log {
        Some(path) => path.clone(),
        None => args.config.load()?.traffic.dir.clone(),
    };
    show(&args.command, &path).or_else(|error| match error.downcast::<LogError>() {
        Ok(unreadable) => Ok(refuse(&unreadable.to_string())),
        Err(error) => Err(error),
    })
}

fn show(command: &LogCommand, path: &Path) -> anyhow::Result<u8> {
    match command {
        LogCommand::Tail { lines, follow } => tail::run(path, *lines, *follow),
        LogCommand::Cat => write_rows(path, serde_json::to_vec),
        LogCommand::Export { names } => {
            let vocabulary = (*names).into();
            write_rows(path, |record| serde_json::to_vec(&export::row(record, vocabulary)))
        }
        LogCommand::Stats { json } => {
            let census = census(path)?;
            say(&if *json {
                serde_json::to_string_pretty(&census)?
            } else {
                stats::table(&census)
            });
            Ok(0)
        }
        LogCommand::Verify { json } => {
            let census = census(path)?;
            say(&if *json {
                serde_json::to_string_pretty(&census)?
            } else {
                stats::faults(&census)
            });
            Ok(if census.is_sound() { 0 } else { FAILED })
        }
    }
}

fn census(path: &Path) -> Result<Census, LogError> {
    let mut census = Census::default();
    for line in read_log(path)? {
        let line = line?;
        warn_of(&line);
        census.add(&line);
    }
    Ok(census.finish())
}

/// Writes one line per record; a reader that has seen enough (`| head`) ends it quietly.
fn write_rows(
    path: &Path,
    row: impl Fn(&Record) -> serde_json::Result<Vec<u8>>,
) -> anyhow::Result<u8> {
    let mut out = BufWriter::new(io::stdout().lock());
    for line in read_log(path)? {
        let line = line?;
        warn_of(&line);
        let Line::Record(record) = line else { continue };
        let written = out.write_all(&row(&record)?).and_then(|()| out.write_all(b"\n"));
        if let Err(error) = written {
            return ended(error);
        }
    }
    match out.flush() {
        Ok(()) => Ok(0),
        Err(error) => ended(error),
    }
}

fn ended(error: io::Error) -> anyhow::Result<u8> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(0) } else { Err(error.into()) }
}

fn warn_of(line: &Line) {
    if let Line::Bad { path, line, reason } = line {
        note(&format!("warning: {}:{line}: {reason}", path.display()));
    }
}
