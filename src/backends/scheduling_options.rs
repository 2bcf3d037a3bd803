//! Scheduling options of a request: priority, deadline, and the client that asks. Pure.

use serde::{Deserialize, Serialize};

use crate::shares::Client;
use crate::units::MonotonicNs;

/// Scheduling options of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulingOptions {
    pub priority: Priority,
    /// The time after which the answer is useless, finished or not.
    pub deadline: Option<MonotonicNs>,
    /// For the places that it may hold, and its turn among those that wait.
    pub client: Client,
}

/// Order of requests that wait for the same model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Priority {
    High,
    #[default]
    Normal,
    Low,
}
