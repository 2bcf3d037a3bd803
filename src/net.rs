//! Construction of HTTP clients: TLS provider, trust roots, proxy and redirects are decided in this
//! one place.
//!
//! Sends nothing itself.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, Url, redirect};

/// Most headers of a response: proxies in front of a server add many.
const RESPONSE_HEADERS_MAX: usize = 256;

/// Limits and defaults of a client; `None` sets no limit.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    pub connect_timeout: Option<Duration>,
    /// Longest pause between two reads of a response.
    pub read_timeout: Option<Duration>,
    /// Of a whole request, the body of the response included.
    pub timeout: Option<Duration>,
    pub idle_connections_per_host: Option<usize>,
    /// Sent with every request.
    pub headers: HeaderMap,
    /// Connect to this Unix socket, whatever the URL's host is.
    pub unix_socket: Option<PathBuf>,
    /// Ignore the proxy settings of the environment.
    pub bypass_proxy: bool,
}

/// Builds a client for the server of `url`.
///
/// It follows no redirect, which could carry a credential to another host.
pub fn client(url: &Url, options: ClientOptions) -> reqwest::Result<Client> {
    // reqwest is built without a TLS provider. An `Err` means that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("wattgate/", env!("CARGO_PKG_VERSION")))
        .default_headers(options.headers)
        .tcp_nodelay(true)
        .http1_max_headers(RESPONSE_HEADERS_MAX)
        .redirect(redirect::Policy::none());
    if let Some(timeout) = options.connect_timeout {
        builder = builder.connect_timeout(timeout);
    }
    if let Some(timeout) = options.read_timeout {
        builder = builder.read_timeout(timeout);
    }
    if let Some(timeout) = options.timeout {
        builder = builder.timeout(timeout);
    }
    if let Some(connections) = options.idle_connections_per_host {
        builder = builder.pool_max_idle_per_host(connections);
    }
    if let Some(path) = options.unix_socket {
        builder = builder.unix_socket(path);
    }
    // Plain HTTP needs no trust roots, and loading them fails in a container without any.
    if url.scheme() == "http" {
        builder = builder.tls_certs_only([]);
    }
    // A proxy for the outside world cannot reach this machine's own servers.
    if options.bypass_proxy || is_loopback(url) {
        builder = builder.no_proxy();
    }
    builder.build()
}

/// Whether the server of `url` runs on this machine, by its name or address.
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_machine_bypass_the_proxy() {
        let bypasses = |url: &str| is_loopback(&Url::parse(url).unwrap());
        for url in [
            "http://localhost:8080",
            "https://127.0.0.1/v1",
            "http://[::1]:9000",
            "http://127.1.2.3",
        ] {
            assert!(bypasses(url), "{url}");
        }
        for url in ["http://10.0.0.5:9090", "https://localhost.example", "https://api.example.com"]
        {
            assert!(!bypasses(url), "{url}");
        }
    }
}
