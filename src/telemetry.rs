//! Process log and metrics. Never prompts, keys or answers.

pub mod config;
pub mod logging;
pub mod metrics;
pub mod model_series;
pub mod one_line;

pub use config::{ACCESS_LOG, Config, LogFormat, LogLevel};
pub use metrics::Metrics;
pub use model_series::{EngineSeries, ModelSeries};
pub use one_line::{OneLine, one_line};
