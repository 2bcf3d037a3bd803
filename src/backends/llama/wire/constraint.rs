//! What a client may demand of an answer's form, as it crosses to the engine, and how it can fail.
//!
//! Types only; what they mean is the grammar's business.

use serde::{Deserialize, Serialize};

/// What an answer must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Constraint {
    /// Any JSON object.
    JsonObject,
    /// JSON that is valid for this schema (its text).
    JsonSchema(String),
}

/// A schema that cannot be worked with, in a client's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum GrammarError {
    #[error("the schema is not valid JSON: {0}")]
    NotJson(String),
    #[error("the schema is not supported: {0}")]
    Unsupported(String),
    #[error("the schema is too complex: {0}")]
    TooComplex(String),
}
