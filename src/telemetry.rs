//! How the process reports on itself: log lines and metrics. Never prompts, keys or answers.

pub mod config;
pub mod logging;
pub mod metrics;

pub use config::{ACCESS_LOG, Config, LogFormat, LogLevel};
pub use metrics::Metrics;
