//! Sensors: how the cumulative energy of a device is read, one file per mechanism.
//!
//! A sensor finds its devices and reports why one cannot be used. It neither selects among devices
//! (`discovery`) nor attributes energy (`attribution`).

pub mod counter;
pub mod coverage;
pub mod discovered;
pub mod gauge;
pub mod latest_figure;
pub mod library;
pub mod mirrors;
pub mod plausibility;
pub mod power_integral;
pub mod process;
pub mod remote;
pub mod sensor;
pub mod sysfs;

pub use coverage::Coverage;
pub use discovered::{Discovered, Kind, SkipReason};
