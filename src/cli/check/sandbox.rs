//! The engines' sandbox on this machine, as `wattgate check` reports it: what holds, and what the
//! kernel cannot do.

use std::fmt;

use serde::Serialize;

use crate::backends::llama::Sandbox;
use crate::config::Config;

#[derive(Serialize)]
pub(super) struct SandboxReport {
    /// `[engines] sandbox`.
    setting: Sandbox,
    /// Only the engine's own files can be opened, and nothing can be written.
    files: bool,
    /// No socket can be opened, no other process traced.
    system_calls: bool,
    /// Models load with this.
    suffices: bool,
    /// What engines are not kept from.
    lacks: Vec<&'static str>,
    #[serde(skip)]
    summary: String,
}

impl SandboxReport {
    /// `None` without local models, or in a build without engines.
    #[cfg(feature = "llama")]
    pub(super) fn of(config: &Config) -> Option<Self> {
        use crate::backends::llama::sandbox::{self, Hold};
        use crate::config::Engine;
        if !config.models.values().any(|model| matches!(model.engine, Engine::Llama(_))) {
            return None;
        }
        let setting = config.engines.sandbox;
        let (hold, summary, lacks) = if setting == Sandbox::Off {
            let lacks = vec!["everything that the user may do: it is off"];
            (Hold::NOTHING, "off".to_owned(), lacks)
        } else {
            let hold = sandbox::available();
            (hold, hold.to_string(), sandbox::lacks())
        };
        let Hold { files, system_calls } = hold;
        let suffices = setting != Sandbox::Required || hold.is_whole();
        Some(Self { setting, files, system_calls, suffices, lacks, summary })
    }

    #[cfg(not(feature = "llama"))]
    pub(super) fn of(_: &Config) -> Option<Self> {
        None
    }
}

impl fmt::Display for SandboxReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sandbox of the engines: {}", self.summary)?;
        if !self.suffices {
            f.write_str("; it is required to be whole, so no local model will load")?;
        }
        if self.setting != Sandbox::Off {
            for lack in &self.lacks {
                write!(f, "\n  not kept from them: {lack}")?;
            }
        }
        Ok(())
    }
}
