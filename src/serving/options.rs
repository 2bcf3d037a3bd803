//! Options of one request beyond its content: policy overrides, scheduling, and who and which conversation it is. Pure.

use crate::backends::Terms;
use crate::routing::PolicyOverrides;

/// Everything a client sets besides the request itself, read from headers and body by the edge.
#[derive(Debug, Default)]
pub struct RequestOptions {
    pub overrides: PolicyOverrides,
    /// Priority and deadline.
    pub scheduling: Terms,
    /// The client's credentials, which keep its conversations apart from other clients'; only ever hashed.
    pub credentials: Vec<u8>,
    /// The client's own name of the conversation.
    pub session: Option<String>,
    /// `metadata.session_id`.
    pub metadata_session: Option<String>,
    pub user: Option<String>,
}
