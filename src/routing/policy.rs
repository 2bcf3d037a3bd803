//! The rule by which one request is decided.

use std::sync::Arc;

use super::{Cascade, Objective};

/// The rule for one request: a configured policy plus what the request itself demands.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub name: Arc<str>,
    pub objective: Objective,
    /// Least adequacy a model must reach to compete on cost, 0 to 1.
    pub floor: f64,
    /// The conversation must not leave this machine. Wins over everything.
    pub local_only: bool,
    /// The client named this model; no other may answer.
    pub pinned: Option<Arc<str>>,
    /// Try a local model first and watch it.
    pub cascade: Option<Cascade>,
}
