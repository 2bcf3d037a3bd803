//! Requests to the gateway that already runs on this machine.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Method, Url};

use crate::config::Config;
use crate::net::{self, ClientOptions};

/// Reply of the gateway.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) text: String,
}

/// Where the gateway listens.
#[derive(Clone, Debug)]
pub(super) enum Listen {
    Address(SocketAddr),
    Socket(PathBuf),
}

impl Listen {
    /// Where `/admin` is.
    pub(super) fn for_orders(config: &Config) -> Self {
        let server = &config.server;
        match &config.admin.socket {
            Some(path) => Self::Socket(path.clone()),
            None => Self::Address(server.admin_listen.unwrap_or(server.listen)),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

/// Sends an empty request to the gateway that listens on `listen`. Blocks for `timeout` at most.
pub(super) fn send(
    method: Method,
    listen: &Listen,
    path: &str,
    timeout: Duration,
) -> anyhow::Result<Result<Reply, reqwest::Error>> {
    let (host, unix_socket) = match listen {
        Listen::Address(address) => (reachable(*address).to_string(), None),
        Listen::Socket(path) => ("localhost".to_owned(), Some(path.clone())),
    };
    let url = Url::parse(&format!("http://{host}{path}"))?;
    let options = ClientOptions { timeout: Some(timeout), unix_socket, ..ClientOptions::default() };
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
