//! Locality of a deployment: how far a prompt travels to reach it. Pure.

use serde::{Deserialize, Serialize};

/// Nearest first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Locality {
    /// On this machine, and nothing there forwards prompts.
    OnHost,
    /// On another machine of the operator's.
    OwnNetwork,
    /// Anywhere else. The default: a server on loopback may be a proxy.
    #[default]
    ThirdParty,
}

impl Locality {
    pub fn label(self) -> &'static str {
        match self {
            Self::OnHost => "on_host",
            Self::OwnNetwork => "own_network",
            Self::ThirdParty => "third_party",
        }
    }
}
