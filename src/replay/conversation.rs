//! Identity of the conversation of a logged request. Pure.

use std::hash::{DefaultHasher, Hasher};

use crate::traffic::Record;

/// The conversation of a request, or the request itself if it has none.
pub fn id(record: &Record) -> u64 {
    record.session.map_or_else(|| hash(&record.receipt.request_id), |session| session.0)
}

/// Depends on the text only, so that a replay repeats itself.
pub fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}
