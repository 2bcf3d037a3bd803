//! Constraints on answers: their shapes, and the tokens that are allowed next.

pub(super) mod closing;
pub(super) mod compile;
pub(super) mod complexity;
pub(super) mod constraint_state;
pub(super) mod lark;
pub(super) mod matcher;
pub(super) mod shape;
