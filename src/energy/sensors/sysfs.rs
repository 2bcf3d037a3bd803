//! Sensors that the kernel exposes as files under `/sys`.

pub mod battery;
pub mod counter_file;
pub mod file;
pub mod hwmon;
pub mod ina3221;
pub mod power_channel;
pub mod rapl;
