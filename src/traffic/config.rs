//! Settings of the traffic log.

use std::path::PathBuf;

use serde::Deserialize;

/// `[traffic]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of the log, one JSONL file per UTC day. Default `data/traffic`.
    pub dir: PathBuf,
    /// How much of a prompt is stored. Default `off`.
    pub prompts: PromptStorage,
}

impl Default for Config {
    fn default() -> Self {
        Self { dir: PathBuf::from("data/traffic"), prompts: PromptStorage::Off }
    }
}

/// How much of a prompt is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptStorage {
    /// Nothing.
    #[default]
    Off,
    /// SHA-256 of the messages: equal prompts can be recognised. A short prompt can be guessed from
    /// its hash.
    Hash,
    /// The messages themselves.
    Full,
}
