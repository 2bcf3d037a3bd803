//! Sensors read over HTTP: Prometheus queries and wall meters.

pub mod polled;
pub mod prometheus;
pub mod wall;
