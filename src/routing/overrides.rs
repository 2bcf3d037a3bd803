//! Overrides: the settings of its policy that a request may change for itself.

use serde::{Deserialize, Serialize};

use super::objective::Objective;
use crate::units::{Dollars, Joules};

/// Overrides that a request sets for itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyOverrides {
    /// 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objective: Option<Objective>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_joules: Option<Joules>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_dollars: Option<Dollars>,
    /// Always permitted; `false` has no effect.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub local_only: bool,
}

impl PolicyOverrides {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Settings that a policy may let a request override.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverrideKind {
    Floor,
    Objective,
    MaxJoules,
    MaxDollars,
}

impl OverrideKind {
    pub const ALL: [Self; 4] = [Self::Floor, Self::Objective, Self::MaxJoules, Self::MaxDollars];

    pub fn label(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Objective => "objective",
            Self::MaxJoules => "max_joules",
            Self::MaxDollars => "max_dollars",
        }
    }
}
