//! The `--config` option, the same in every subcommand.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::{self, Config, Problems};

/// Path of the config file where none is named.
pub(super) const CONFIG_FILE: &str = "config.toml";

/// The config file.
#[derive(Debug, Clone, Args)]
pub(super) struct ConfigArgs {
    /// Config file
    #[arg(long, default_value = CONFIG_FILE, value_name = "PATH")]
    pub(super) config: PathBuf,
}

impl ConfigArgs {
    pub(super) fn load(&self) -> Result<Config, Problems> {
        config::load(&self.config)
    }

    /// Whether the path is the default one: a file that was not asked for may be missing.
    pub(super) fn is_default(&self) -> bool {
        self.config == Path::new(CONFIG_FILE)
    }
}
