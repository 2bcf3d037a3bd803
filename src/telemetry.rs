//! Process log and metrics. Never prompts, keys or answers.

pub mod config;
pub mod logging;
pub mod metrics;
pub mod model_series;

pub use config::{ACCESS_LOG, Config, LogFormat, LogLevel};
pub use metrics::Metrics;
pub use model_series::{EngineSeries, ModelSeries};
