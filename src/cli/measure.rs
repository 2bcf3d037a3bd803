//! `wattgate measure`: intelligence per watt of the config's models on this machine, and the
//! profile that follows from it.
//!
//! Each model runs in a gateway on loopback that has nothing else loaded.

mod args;
mod calibrate;
mod questions;

pub(super) use self::args::MeasureArgs;
use self::args::{BadInput, models};
use super::console::{refuse, say};
use crate::measure::{Comparison, JournalError, Run, SuiteError};
use crate::telemetry::{LogLevel, logging};

pub(super) fn run(args: &MeasureArgs) -> anyhow::Result<u8> {
    if !args.compare.is_empty() {
        return compare(args);
    }
    let mut config = args.config.load()?;
    config.log.level = LogLevel::Warn;
    logging::init(&config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let models = models(args, &config)?;
        match &args.calibrate {
            Some(meter) => calibrate::run(args, &config, &models, meter).await,
            None => questions::measure(args, &config, &models).await,
        }
    });
    match done {
        Ok(()) => Ok(0),
        Err(error) if error.is::<BadInput>() || error.is::<SuiteError>() => {
            Ok(refuse(&error.to_string()))
        }
        Err(error) if error.downcast_ref::<JournalError>().is_some_and(is_callers) => {
            Ok(refuse(&error.to_string()))
        }
        Err(error) => Err(error),
    }
}

/// Shows the runs of `--compare`, without a config.
fn compare(args: &MeasureArgs) -> anyhow::Result<u8> {
    let runs: Result<Vec<Run>, JournalError> =
        args.compare.iter().map(|dir| Run::read(dir)).collect();
    let found = match runs {
        Ok(runs) => Comparison::of(&runs),
        Err(error) => return Ok(refuse(&error.to_string())),
    };
    if args.json {
        say(&serde_json::to_string_pretty(&found)?);
    } else {
        say(&found.to_string());
    }
    Ok(0)
}

fn is_callers(error: &JournalError) -> bool {
    !matches!(error, JournalError::Io { .. })
}
