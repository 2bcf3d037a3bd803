//! The parts of a machine that sensors cover.

use serde::{Deserialize, Serialize};

/// The part of a machine that a device's figure covers. `Machine` contains all others except
/// `Elsewhere`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coverage {
    /// The whole machine, or all of its computing parts.
    Machine,
    /// A CPU package with all parts in it.
    Processor,
    /// Memory outside a package.
    Memory,
    /// A discrete card.
    Accelerator,
    /// Another machine, whose engines are reached over the network.
    Elsewhere,
}

impl Coverage {
    pub fn label(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Processor => "processor",
            Self::Memory => "memory",
            Self::Accelerator => "accelerator",
            Self::Elsewhere => "elsewhere",
        }
    }
}
