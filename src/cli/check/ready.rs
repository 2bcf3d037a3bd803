//! `wattgate check --ready`: whether the gateway that runs here can answer, for health checks of
//! containers and services.
//!
//! Reads the config for the address, sends one request to `/readyz` and starts nothing.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Method;

use crate::cli::console::{fail, say};
use crate::cli::running_gateway::{Listen, Reply, send};

/// Health checks of containers allow 30 s by default.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Returns the exit code: 0 if at least one model can answer, else 1.
pub(super) fn run(listen: SocketAddr) -> anyhow::Result<u8> {
    Ok(match send(Method::GET, &Listen::Address(listen), "/readyz", TIMEOUT)? {
        Ok(Reply { status: 200, .. }) => {
            say("ready");
            0
        }
        Ok(Reply { status, text }) => {
            let text = text.lines().next().unwrap_or_default();
            fail(&format!("the gateway at {listen} is not ready (HTTP {status}): {text}"))
        }
        Err(error) if error.is_timeout() => {
            fail(&format!("the gateway at {listen} did not answer within {} s", TIMEOUT.as_secs()))
        }
        Err(_) => fail(&format!("no gateway answers at {listen}")),
    })
}
