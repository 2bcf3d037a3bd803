//! What a client asks about when its request is worked on: priority and deadline. Facts only; no clock.

use serde::{Deserialize, Serialize};

use crate::units::MonotonicNs;

/// The terms of one request; the default is neither hurry nor patience.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub priority: Priority,
    /// When the answer stops being of use, finished or not.
    pub deadline: Option<MonotonicNs>,
}

/// Who goes first among those that wait for the same model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Priority {
    High,
    #[default]
    Normal,
    Low,
}
