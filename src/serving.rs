//! The serving core: plans a request, executes it, accounts for it, and keeps receipts and
//! conversations.
//!
//! Knows no HTTP, reads no other module's configuration and starts no tasks; `app` builds it and
//! `http` calls it.

pub mod attempt_state;
pub mod conversations;
pub mod decision_metrics;
pub mod error;
pub mod execution;
pub mod failures;
pub mod feedback;
pub mod first_tokens;
pub mod gateway;
pub mod judge;
pub mod models;
pub mod options;
pub mod plan;
pub mod pricing;
pub mod receipts;
pub mod recorder;
pub mod redaction;
pub mod remote_metering;
pub mod scrape;
pub mod snapshot;

pub use gateway::{Gateway, Router};
pub use models::deployment::{Deployment, Kind};
pub use models::model::Model;
