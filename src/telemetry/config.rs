//! Config of the process log.

use serde::Deserialize;

/// Target of the lines about HTTP requests.
pub const ACCESS_LOG: &str = "access";

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Least severe level that is logged. Default `info`; the environment variable `RUST_LOG`
    /// overrides it.
    pub level: LogLevel,
    /// Default `text`.
    pub format: LogFormat,
    /// A line for each HTTP request. Default false; `RUST_LOG` overrides it.
    pub access: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
}

impl Config {
    /// The filter that the settings stand for.
    pub fn directives(&self) -> String {
        let level = self.level.directive();
        if self.access { level.to_owned() } else { format!("{level},{ACCESS_LOG}=off") }
    }
}

impl LogLevel {
    pub fn directive(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line per event.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}
