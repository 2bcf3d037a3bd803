//! Settings of routing: the trained router, the default policy, and the policies by name.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Cascade, Objective};

/// `[routing]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Policy of the model name `auto`; one of `[policies.<name>]`. Default `default`.
    pub default_policy: String,
    /// Folder of a router made by `wattgate train`. Default: the one built in.
    pub router: Option<PathBuf>,
    /// Folder of another router whose decisions are logged beside the real ones and never followed. Default: none.
    pub candidate: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self { default_policy: "default".to_owned(), router: None, candidate: None }
    }
}

/// `[policies.<name>]`, asked for as the model `auto/<name>`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// What to minimise among adequate models: `joules`, `dollars` or `latency`; or maximise: `quality`.
    /// Default `joules`.
    pub objective: Objective,
    /// Least adequacy, 0 to 1, that a model must be predicted to reach. Default 0.6.
    pub floor: f64,
    /// Never leave this machine. Default false.
    pub local_only: bool,
    /// Let a local model begin, and another one answer if it does not look sure. Default: no.
    pub cascade: Option<Cascade>,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self { objective: Objective::Joules, floor: 0.6, local_only: false, cascade: None }
    }
}
