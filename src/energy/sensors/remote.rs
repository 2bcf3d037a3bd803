//! Sensors read over HTTP: Prometheus queries and wall meters.

pub mod latest_figure;
pub mod prometheus;
pub mod wall;
