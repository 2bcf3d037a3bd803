//! Sensors behind a vendor's library: NVIDIA's NVML and Apple's `IOReport`.

pub mod apple;
pub mod nvml;
