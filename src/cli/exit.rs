//! Exit codes of commands.

/// A command that could not do its work.
pub(super) const FAILED: u8 = 1;
/// Arguments, a config or data that cannot be used.
pub(super) const BAD_INPUT: u8 = 2;
