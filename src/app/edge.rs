//! The wiring of the HTTP edge: from the configuration to the state of the handlers.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::http::host::Hosts;
use crate::http::operator::OperatorAccess;
use crate::http::origin::Origins;
use crate::http::responses::store::Store;
use crate::http::state::{BodyLimits, Edge, EdgeState};
use crate::serving::Gateway;
use crate::shares::{Share, Shares};

/// State of the handlers.
pub fn edge(config: &Config, gateway: Arc<Gateway>) -> Edge {
    let server = &config.server;
    let share = Share::new(server.client_share);
    let key = config.admin.key_env.as_ref().map(|variable| {
        std::env::var(variable).unwrap_or_else(|_| {
            tracing::warn!("/admin has no key: set {variable} and restart");
            String::new()
        })
    });
    Edge::new(EdgeState {
        gateway,
        body: BodyLimits {
            bytes: server.max_body_bytes,
            timeout: Duration::from_millis(server.body_timeout_ms),
            in_memory: Shares::new(server.body_memory_bytes, share),
        },
        limits: server.limits,
        operator: OperatorAccess::new(config.admin.allow_remote, key.as_deref()),
        stream_head_after: Duration::from_millis(server.stream_head_after_ms),
        origins: Origins::new(&server.cors_origins),
        responses: Store::new(server.responses, share),
        hosts: Hosts::new(&server.hosts),
    })
}
