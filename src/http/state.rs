//! State of the handlers: the serving core and the edge's own settings.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;

use super::extract::limits::RequestLimits;
use super::host::Hosts;
use super::operator::OperatorAccess;
use super::origin::Origins;
use super::responses::store::Store;
use crate::serving::Gateway;
use crate::shares::Shares;

/// Shared by all handlers; one reference, since each layer clones it for each request.
#[derive(Clone)]
pub struct Edge(Arc<EdgeState>);

impl Edge {
    pub fn new(state: EdgeState) -> Self {
        Self(Arc::new(state))
    }
}

impl Deref for Edge {
    type Target = EdgeState;

    fn deref(&self) -> &EdgeState {
        &self.0
    }
}

/// The serving core and the settings of the edge.
pub struct EdgeState {
    pub gateway: Arc<Gateway>,
    pub body: BodyLimits,
    pub operator: OperatorAccess,
    pub limits: RequestLimits,
    /// How long the head of a streamed reply may wait for the first output.
    pub stream_head_after: Duration,
    pub origins: Origins,
    /// Answers of `/v1/responses`.
    pub responses: Arc<Store>,
    /// Names by which the gateway may be called.
    pub hosts: Hosts,
}

/// Limits of a request's body.
#[derive(Clone, Debug)]
pub struct BodyLimits {
    /// Of one body.
    pub bytes: usize,
    /// From the request's head to the end of its body.
    pub timeout: Duration,
    /// Bytes of all bodies in memory, from their arrival to the end of their requests.
    pub in_memory: Arc<Shares>,
}

impl FromRef<Edge> for Arc<Gateway> {
    fn from_ref(edge: &Edge) -> Self {
        Self::clone(&edge.gateway)
    }
}
