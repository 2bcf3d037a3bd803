//! Expected energy and time of work that has not run or cannot be metered: fitted profiles,
//! corrected estimates, the table of cloud model classes and what upstreams report.

pub mod calibration;
pub mod cloud_table;
pub mod estimate;
pub mod profile;
pub mod upstream;
