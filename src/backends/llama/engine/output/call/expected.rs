//! The calls an answer may hold, and the events of reading one.
//!
//! Pure. Types only.

use serde_json::Value;

use crate::backends::llama::engine::tool_format::CallFormat;

/// The calls an answer may hold.
#[derive(Clone, Debug)]
pub(crate) struct ExpectedCalls {
    pub(crate) format: CallFormat,
    /// Functions that may be called; a call of any other is text.
    pub(crate) names: Vec<String>,
    /// The schemas of their arguments, where the format spells each for itself.
    pub(crate) schemas: Vec<Value>,
    /// Whether there may be several.
    pub(crate) parallel: bool,
}

/// The effect of one more character.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Nothing to emit yet.
    More,
    /// The name is known, and the arguments begin.
    Begun { name: String, arguments: String },
    /// More of the arguments.
    Arguments(String),
    /// A whole call whose arguments came before its name.
    Whole { name: String, arguments: String },
    /// The end of a begun call, with the last of its arguments. The character is part of it unless
    /// `left`.
    Done { arguments: String, left: bool },
    /// Not a call of a known tool.
    NoCall,
}
