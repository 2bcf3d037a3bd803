//! Reasons why the meter cannot start.

use std::io;

use crate::energy::prediction::profile::ProfileError;

/// Why the meter cannot start.
#[derive(Debug, thiserror::Error)]
pub enum MeterError {
    #[error("energy.sensors is `{kind}`, but no such sensor can be read: {why}")]
    NoSensor { kind: &'static str, why: String },
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error("cannot start the meter thread: {0}")]
    Thread(io::Error),
}
