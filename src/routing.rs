//! Which model should answer. Decisions are pure: no clock, no I/O, no logging.

pub mod text;
pub mod adequacy;
pub mod config;
pub mod task;
pub mod features;
pub mod length;
pub mod latency;
pub mod session;
pub mod candidate;
pub mod objective;
pub mod rule;
pub mod signals;
pub mod confidence;
pub mod cascade;
pub mod policy;
pub mod exclusion;
pub mod reason;
pub mod decide;
pub mod drift;

pub use adequacy::{AdequacyError, AdequacyModel};
pub use candidate::{Cache, Candidate, Costs, NotLoaded, Route, Unavailable};
pub use cascade::Cascade;
pub use confidence::{Confidence, ConfidenceError};
pub use config::{Config, PolicyConfig, SessionsConfig};
pub use decide::{Decision, Judged, decide};
pub use exclusion::Exclusion;
pub use features::{Capabilities, Features};
pub use latency::Latency;
pub use length::OutputLength;
pub use objective::{Lambda, Objective};
pub use policy::{OverrideKind, Policy, PolicyOverrides, Refusal};
pub use reason::Reason;
pub use rule::{Explore, Rule, Stay};
pub use session::{SessionId, Sessions};
pub use signals::Signals;
pub use task::TaskClass;
