//! From a submission to a command: rendering, tokenising and compiling, on threads of their own.

pub(crate) mod interrupt;
mod lanes;
pub(crate) mod workers;
