//! Messages between an engine and its helper process, in the frames of `wire::protocol`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backends::llama::wire::conversation::{ToolUse, Turn};

/// The first message to a helper.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// Source of the chat template.
    pub(crate) template: String,
    /// Texts of the tokens that begin and end a sequence.
    pub(crate) bos: String,
    pub(crate) eos: String,
    /// Spellings of the control tokens.
    pub(crate) controls: Vec<String>,
}

/// One task, and the CPU time that it may take: a loaded machine makes no schema harder.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) task: Task,
    pub(super) cpu_max: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Task {
    Render(Rendering),
    Try(Trial),
}

/// A conversation to render.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Rendering {
    pub(crate) turns: Vec<Turn>,
    pub(crate) tools: Option<ToolUse>,
    /// Additional template variables as JSON text; none if empty.
    pub(crate) variables: String,
}

/// A schema or a regular expression to compile.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Trial {
    /// JSON text; a lenient one loses what cannot be enforced.
    Schema {
        json: String,
        lenient: bool,
    },
    Regex(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The prompt, or the template's error message.
    Rendered(Result<String, String>),
    /// The compiler has ended, with a grammar or an error.
    Tried,
    /// The task takes more CPU time than it may; the process ends.
    TooLong,
}
