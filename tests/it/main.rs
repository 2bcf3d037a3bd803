//! The tests that go through the front door: one binary, so the crate is linked once.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should stop loudly"
)]
#![expect(unreachable_pub, reason = "`pub` marks what one test module offers to the others")]

mod app;
mod cloud;
mod config;
mod engine;
mod fallback;
mod faults;
mod gateway;
mod local;
mod log;
mod models;
mod replay;
mod stand_in;
mod tools;
