//! Which model should answer. Decisions are pure: no clock, no I/O, no logging.

pub mod text;
pub mod adequacy;
pub mod config;
pub mod features;
pub mod policy;

pub use adequacy::{AdequacyError, AdequacyModel};
pub use config::{Config, PolicyConfig};
pub use features::{Capabilities, Features};
pub use policy::{
    Candidate, Decision, Exclusion, Judged, NotLoaded, Objective, Policy, Reason, Route,
    Unavailable, decide,
};
