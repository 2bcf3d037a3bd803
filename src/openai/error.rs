//! OpenAI's error envelope, the one shape every failure has on the wire.

use serde::{Deserialize, Serialize};

/// `{"error": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorEnvelope {
    pub error: ErrorBody,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// A sentence for a person; says what to do next where something can be done.
    pub message: String,
    /// OpenAI's coarse class, such as `invalid_request_error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The request field at fault, if one is.
    #[serde(default)]
    pub param: Option<String>,
    /// A stable word a program may match on, such as `context_length_exceeded`.
    #[serde(default)]
    pub code: Option<String>,
}
