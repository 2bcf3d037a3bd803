//! Notice to a gateway on this machine that its router has changed.

use std::time::Duration;

use reqwest::Method;

use crate::cli::console::say;
use crate::cli::running_gateway::{Listen, Reply, send};

/// The gateway reads the router's files before it replies.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the exit code. It is an error if the gateway refuses the router, and none if no gateway
/// runs.
pub(super) fn reload(listen: &Listen) -> anyhow::Result<u8> {
    match send(Method::POST, listen, "/admin/router/reload", TIMEOUT)? {
        Ok(Reply { status: 200..=299, .. }) => say("gateway reloaded the router"),
        Ok(Reply { status, text }) => {
            anyhow::bail!("the gateway did not reload the router (HTTP {status}): {text}")
        }
        Err(_) => say(&format!("no gateway answers at {listen}; the next one to start uses it")),
    }
    Ok(0)
}
