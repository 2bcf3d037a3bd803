//! `wattgate measure`: intelligence per watt of the config's models on this machine, and the
//! profile that follows from it.
//!
//! Each model runs in a gateway on loopback that has nothing else loaded.

mod args;
mod calibrate;
mod questions;

pub(super) use self::args::MeasureArgs;
use self::args::{BadInput, models};
use super::console::refuse;
use crate::measure::{JournalError, SuiteError};
use crate::telemetry::{LogLevel, logging};

pub(super) fn run(args: &MeasureArgs) -> anyhow::Result<u8> {
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

fn is_callers(error: &JournalError) -> bool {
    !matches!(error, JournalError::Io { .. })
}
