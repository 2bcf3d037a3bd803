//! Which model should answer. Decisions are pure: no clock, no I/O, no logging.

pub mod text;
pub mod adequacy;
pub mod config;
pub mod features;
pub mod candidate;
pub mod objective;
pub mod signals;
pub mod confidence;
pub mod cascade;
pub mod policy;
pub mod exclusion;
pub mod reason;
pub mod decide;
pub mod drift;

pub use adequacy::{AdequacyError, AdequacyModel};
pub use candidate::{Candidate, NotLoaded, Route, Unavailable};
pub use cascade::Cascade;
pub use confidence::{Confidence, ConfidenceError};
pub use config::{Config, PolicyConfig};
pub use decide::{Decision, Judged, decide};
pub use exclusion::Exclusion;
pub use features::{Capabilities, Features};
pub use objective::Objective;
pub use policy::Policy;
pub use reason::Reason;
pub use signals::Signals;
