//! Settings of the HTTP server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

use super::extract::limits::RequestLimits;
use super::responses::store::StoreConfig;
use super::{host, origin};
use crate::shares::Share;
use crate::validate::{Diagnostics, Validate};

/// `[server]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port to listen on; port 0 takes a free one. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// Address of `/admin` and `/metrics`, which are then not at `listen`. Default none: they are
    /// at `listen`.
    pub admin_listen: Option<SocketAddr>,
    /// Most connections at once; further requests of one HTTP/2 connection count as well. Default
    /// 4096.
    pub max_connections: u32,
    /// Longest time from a request's head to the end of its body, milliseconds. Default 60 000.
    pub body_timeout_ms: u64,
    /// Largest request body, bytes, before and after it is decoded. Default 32 MiB, which takes
    /// pictures.
    pub max_body_bytes: usize,
    /// Bytes of all request bodies in memory, from their arrival to the end of their requests.
    /// Default 512 MiB.
    pub body_memory_bytes: u64,
    /// The largest part of a model's places, of the connections and of the memory for bodies that
    /// one client may take, above 0 to 1; 1: all. Default 0.875.
    pub client_share: f64,
    /// How long a streamed request may take to begin to be answered before its status leaves with
    /// comments that keep the connection alive, milliseconds. A failure before that still has a
    /// status of its own. Default 3 000.
    pub stream_head_after_ms: u64,
    /// How long a connection may stay open without a request, or with one whose head does not
    /// arrive, milliseconds. Default 75 000.
    pub idle_timeout_ms: u64,
    /// How long a client may leave a reply unread, milliseconds. Default 30 000.
    pub write_timeout_ms: u64,
    /// How long open answers may go on after a stop signal, milliseconds. Default 10 000.
    pub shutdown_grace_ms: u64,
    /// Origins whose web pages may use the gateway, such as `https://chat.example.com`; `*`: all.
    /// Default none.
    pub cors_origins: Vec<String>,
    /// Names by which clients may call the gateway beside addresses, `localhost` and names of
    /// private networks, such as `gateway.example.com`; `*`: all. Default none.
    pub hosts: Vec<String>,
    /// Most elements of a request.
    pub limits: RequestLimits,
    /// Answers of `/v1/responses` that clients can fetch and continue.
    pub responses: StoreConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            admin_listen: None,
            max_connections: 4096,
            body_timeout_ms: 60_000,
            max_body_bytes: 32 * 1024 * 1024,
            body_memory_bytes: 512 * 1024 * 1024,
            client_share: Share::DEFAULT,
            stream_head_after_ms: 3_000,
            idle_timeout_ms: 75_000,
            write_timeout_ms: 30_000,
            shutdown_grace_ms: 10_000,
            cors_origins: Vec::new(),
            hosts: Vec::new(),
            limits: RequestLimits::default(),
            responses: StoreConfig::default(),
        }
    }
}

/// The kernels' limits are 108 bytes (Linux) and 104 (macOS), with a final zero; the socket has a
/// longer name for a moment.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// `[admin]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Whether other machines may use `/admin`. Default false: only connections from this machine.
    pub allow_remote: bool,
    /// Path of a Unix socket for `/admin`, which is then nowhere else, and `/metrics`; private to
    /// the user of the gateway. Default none.
    pub socket: Option<PathBuf>,
    /// Environment variable of the key that opens `/admin` to whom is not on this machine. Default
    /// none.
    pub key_env: Option<String>,
}

impl Validate for AdminConfig {
    fn validate(&self, out: &mut Diagnostics) {
        let Some(socket) = &self.socket else { return };
        let length = socket.as_os_str().len();
        let fits = (1..=SOCKET_PATH_BYTES_MAX).contains(&length);
        out.rule("socket", fits, "must be a path of at most 100 bytes");
        // They would open what is not there.
        let is_alone = !self.allow_remote && self.key_env.is_none();
        out.rule(
            "socket",
            is_alone,
            "cannot be combined with allow_remote or key_env: /admin is at the socket only",
        );
    }
}

impl Validate for Config {
    fn validate(&self, out: &mut Diagnostics) {
        out.positive([
            ("max_connections", u64::from(self.max_connections)),
            ("body_timeout_ms", self.body_timeout_ms),
            ("max_body_bytes", self.max_body_bytes as u64),
            ("idle_timeout_ms", self.idle_timeout_ms),
            ("write_timeout_ms", self.write_timeout_ms),
        ]);
        let part = self.client_share;
        out.rule("client_share", part > 0.0 && part <= 1.0, "must be above 0 and at most 1");
        let most = Share::new(part).most_for_one(self.body_memory_bytes);
        let fits = self.max_body_bytes as u64 <= most;
        let rule = "must hold max_body_bytes in the part of one client (client_share)";
        out.rule("body_memory_bytes", fits, rule);
        origin::validate(&self.cors_origins, out);
        host::validate(&self.hosts, out);
        out.table("limits", &self.limits);
        out.table("responses", &self.responses);
    }
}
