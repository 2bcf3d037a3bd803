//! Reasons why the gateway does not start or stops.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::backends::cloud::SetupError;
use crate::energy::MeterError;
use crate::serving::models::router_handle::LoadRouterError;
use crate::traffic::StartError;

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("cannot listen on {address}: {source}{hint}")]
    Listen { address: SocketAddr, source: io::Error, hint: &'static str },
    #[error("cannot listen on {}: {source}", .path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("cannot write the traffic log: {0}")]
    TrafficLog(#[from] StartError),
    #[error(transparent)]
    Meter(#[from] MeterError),
    #[error(transparent)]
    Router(#[from] LoadRouterError),
    #[error(transparent)]
    Cloud(#[from] SetupError),
    #[error("HTTP server failed: {0}")]
    Server(io::Error),
}
