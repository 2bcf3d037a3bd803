//! The id of a request: made before anything else happens, in the log, in the receipts and in every
//! reply.

use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

/// Header of every reply.
const HEADER: HeaderName = HeaderName::from_static("x-wattgate-request-id");

/// An extension of each request.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

impl RequestId {
    /// Ids sort by time.
    pub fn generate() -> Self {
        let mut text = uuid::Uuid::encode_buffer();
        Self(Arc::from(&*uuid::Uuid::now_v7().hyphenated().encode_lower(&mut text)))
    }

    /// Names the request in its reply.
    pub fn write(&self, response: &mut Response) {
        if let Ok(value) = HeaderValue::from_str(&self.0) {
            response.headers_mut().entry(HEADER).or_insert(value);
        }
    }
}
