//! `wattgate check`, `init`, `models` and `serve` as processes; the traffic log on disk.

#[cfg(target_os = "linux")]
mod clock;
mod config;
mod init;
mod model_library;
mod model_pull;
mod pull_faults;
mod pull_hub;
mod ready;
mod serve;
mod disk;
mod traffic_log;
