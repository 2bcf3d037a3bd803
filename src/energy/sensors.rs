//! The sensors Wattgate knows: one file a kind, a survey of what a machine has, and the choice among it.
//!
//! Each kind looks for its devices and says why one cannot be used; only [`choice`] decides between kinds.

pub mod file;
pub mod counter_file;
pub mod gauge;
pub mod candidate;
pub mod choice;
pub mod rapl;
pub mod hwmon;
pub mod ina3221;
pub mod apple;
pub mod battery;
pub mod nvml;
pub mod asking;
pub mod poller;
pub mod remote;
pub mod prometheus;
pub mod wall;
pub mod survey;

pub use candidate::{Candidate, Kind, Place, Why};
pub use survey::{Finding, Survey};
