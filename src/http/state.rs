//! State of the handlers: the serving core and the edge's own settings.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;

use super::config::AdminConfig;
use super::extract::limits::RequestLimits;
use super::origin::Origins;
use crate::serving::Gateway;

/// Shared by all handlers.
#[derive(Clone)]
pub struct Edge {
    pub gateway: Arc<Gateway>,
    pub body: BodyLimits,
    pub limits: RequestLimits,
    pub admin: AdminConfig,
    /// How long the head of a streamed reply may wait for the first output.
    pub stream_head_after: Duration,
    pub origins: Origins,
}

/// Limits of a request's body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    pub bytes: usize,
    /// From the request's head to the end of its body.
    pub timeout: Duration,
}

impl FromRef<Edge> for Arc<Gateway> {
    fn from_ref(edge: &Edge) -> Self {
        Self::clone(&edge.gateway)
    }
}
