//! The forms that answers must keep to: what they are, and which tokens they allow next.

pub(super) mod closing;
pub(super) mod compile;
pub(super) mod complexity;
pub(super) mod constraint_state;
pub(super) mod lark;
pub(super) mod matcher;
pub(super) mod shape;
