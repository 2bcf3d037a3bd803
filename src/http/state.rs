//! State of the handlers: the serving core and the edge's own settings.

use std::sync::Arc;

use axum::extract::FromRef;

use super::config::AdminConfig;
use crate::serving::Gateway;

/// Shared by all handlers.
#[derive(Clone)]
pub struct Edge {
    pub gateway: Arc<Gateway>,
    pub max_body_bytes: usize,
    pub admin: AdminConfig,
}

impl FromRef<Edge> for Arc<Gateway> {
    fn from_ref(edge: &Edge) -> Self {
        Self::clone(&edge.gateway)
    }
}
