//! Options of one request beyond its content: policy overrides, scheduling, and who and which
//! conversation it is. Pure.

use std::sync::Arc;

use crate::backends::SchedulingOptions;
use crate::routing::PolicyOverrides;

/// Client settings other than the request itself, from headers and body.
#[derive(Debug, Default)]
pub struct RequestOptions {
    /// Unique; named in the reply, the receipt and the log.
    pub request_id: Arc<str>,
    pub overrides: PolicyOverrides,
    /// Priority and deadline.
    pub scheduling: SchedulingOptions,
    /// The client's credentials, which keep its conversations apart from other clients'; only ever
    /// hashed.
    pub credentials: Vec<u8>,
    /// The client's own name of the conversation.
    pub session: Option<String>,
    /// `metadata.session_id`.
    pub metadata_session: Option<String>,
    pub user: Option<String>,
    /// What an agent says the request is for: `main`, `subagent`, `compaction`, …
    pub request_class: Option<String>,
}
