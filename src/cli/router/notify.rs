//! Tells a gateway on this machine that its router has changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::Url;

use crate::cli::console::say;
use crate::net::{self, ClientOptions};

/// Longest wait for the gateway to read a router.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The exit code: a gateway that refuses the router is a failure, one that does not run is not.
pub(super) fn reload(listen: SocketAddr) -> anyhow::Result<u8> {
    let url = Url::parse(&format!("http://{}/admin/router/reload", reachable(listen)))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let options = ClientOptions { timeout: Some(TIMEOUT), ..ClientOptions::default() };
        match net::client(&url, options)?.post(url).send().await {
            Ok(answer) if answer.status().is_success() => {
                say("the gateway has taken it over");
                Ok(0)
            }
            Ok(answer) => {
                let status = answer.status();
                let text = answer.text().await.unwrap_or_default();
                anyhow::bail!("the gateway did not take it over (HTTP {status}): {text}")
            }
            Err(_) => {
                say(&format!("no gateway answers at {listen}; the next one to start uses it"));
                Ok(0)
            }
        }
    })
}

/// Listening on every address is no address to ask at.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
