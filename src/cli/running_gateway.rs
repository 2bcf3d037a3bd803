//! Requests to the gateway that already runs on this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::{Method, Url};

use crate::net::{self, ClientOptions};

/// Reply of the gateway.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) text: String,
}

/// Sends an empty request to the gateway that listens on `listen`. Blocks for `timeout` at most.
pub(super) fn send(
    method: Method,
    listen: SocketAddr,
    path: &str,
    timeout: Duration,
) -> anyhow::Result<Result<Reply, reqwest::Error>> {
    let url = Url::parse(&format!("http://{}{path}", reachable(listen)))?;
    let options = ClientOptions { timeout: Some(timeout), ..ClientOptions::default() };
    let request = net::client(&url, options)?.request(method, url);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok(Reply { status, text: response.text().await?.trim_end().to_owned() })
    }))
}

/// A gateway that listens on every address is reached over loopback.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_reached_over_loopback() {
        for (listen, reached) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.0.0.5:81", "10.0.0.5:81"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), reached.parse().unwrap());
        }
    }
}
