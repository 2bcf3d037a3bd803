//! What clients share: places at a model, connections, memory for request bodies. One client never
//! takes all of it: the last part is kept for clients that hold little.
//!
//! Any client may take what is not kept, so a lone one has nearly everything. Nothing waits here.

pub mod decision;
pub mod ledger;

pub use decision::{Client, Refusal, Share};
pub use ledger::{Shares, Taken};
