//! How long an upstream may be silent.

use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Before the first chunk: a model may think for long.
    pub(super) first: Duration,
    /// Between two pieces of an answer that has begun.
    pub(super) between: Duration,
    /// For an answer that comes whole.
    pub(super) whole: Duration,
}
