//! Tests that drive Wattgate from outside: one binary, so that the crate is linked once.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should stop loudly"
)]
#![expect(unreachable_pub, reason = "`pub` marks what one test module offers to the others")]

mod api;
mod backends;
mod cli;
mod energy;
mod hostile;
mod offline;
mod rig;
mod routing;
