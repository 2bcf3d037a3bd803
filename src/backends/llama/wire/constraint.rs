//! Constraints that a client sets on an answer, and the errors of their schemas.

use serde::{Deserialize, Serialize};

/// A constraint on an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Constraint {
    /// Any JSON object.
    JsonObject,
    /// JSON that is valid under this schema, given as text.
    JsonSchema {
        schema: String,
        /// Refused if it cannot be enforced whole; otherwise keywords beyond the grammar are left
        /// out.
        strict: bool,
    },
    /// Text that matches this regular expression as a whole.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
}

/// An unusable constraint; the text is shown to clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum GrammarError {
    #[error("the schema is not valid JSON: {0}")]
    NotJson(String),
    #[error("the schema is not supported: {0}")]
    Unsupported(String),
    #[error("the schema is too complex: {0}")]
    TooComplex(String),
    #[error("the regular expression is not supported: {0}")]
    Regex(String),
}
