//! The tests that go through the front door: one binary, so the crate is linked once.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should stop loudly"
)]
#![expect(unreachable_pub, reason = "`pub` marks what one test module offers to the others")]

mod app;
mod attribution;
mod cascade;
mod cascade_curve;
mod cloud;
mod completion;
mod config;
mod conservation;
mod crashes;
mod dialects;
mod drafts;
mod embedding;
mod energy;
mod engine;
mod equality;
mod fallback;
mod faults;
mod feedback;
mod gateway;
mod hostile;
mod hostile_schemas;
mod hub;
mod init;
mod judge;
mod library;
mod lifecycle;
mod local;
mod log;
mod measure;
mod metrics;
mod lora;
mod models;
mod output;
mod policies;
mod prefix;
mod promote;
mod pull_faults;
mod replay;
mod route;
mod side_by_side;
mod sessions;
mod soak;
mod stand_in;
mod terms;
mod tools;
mod train;
