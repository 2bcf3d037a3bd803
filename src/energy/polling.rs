//! Periodic HTTP requests for figures of other machines: wall meters, Prometheus servers, the
//! grid's carbon intensity.

pub mod http_config;
pub mod poller;
