//! Memory of conversations, by keyed hashes only.

pub mod retry_detector;
pub mod sessions;
