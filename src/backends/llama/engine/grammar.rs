//! Constraints on answers: their shapes, and the tokens that are allowed next.

pub(super) mod closing;
pub(super) mod compile;
pub(super) mod complexity;
pub(super) mod constraint_state;
pub(super) mod lark;
pub(super) mod matcher;
mod mentioned;
mod overlap;
mod prepare;
mod references;
pub(super) mod shape;
pub(super) mod trials;
