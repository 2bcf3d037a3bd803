//! Constraints on answers, under the names that servers gave them: `response_format` (OpenAI),
//! `json_schema` (llama-server), `guided_*` and `structured_outputs` (vLLM).

use serde::Deserialize;
use serde_json::value::RawValue;

/// `response_format`.
#[derive(Debug, Deserialize)]
pub struct ResponseFormat {
    /// `text`, `json_object` or `json_schema`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Present for the kind `json_schema`.
    #[serde(default)]
    pub json_schema: Option<JsonSchemaFormat>,
    /// The JSON schema of the kind `json_object`, as llama-server and others have it.
    #[serde(default)]
    pub schema: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
pub struct JsonSchemaFormat {
    /// The JSON schema, verbatim.
    #[serde(default)]
    pub schema: Option<Box<RawValue>>,
    /// Whether the whole schema must be enforced.
    #[serde(default)]
    pub strict: Option<bool>,
}

/// vLLM's newer field for all constraints; one of them is set.
#[derive(Debug, Deserialize)]
pub struct StructuredOutputs {
    /// A JSON schema, or its text.
    #[serde(default)]
    pub json: Option<Box<RawValue>>,
    #[serde(default)]
    pub regex: Option<String>,
    /// The answers to choose from.
    #[serde(default)]
    pub choice: Option<Vec<String>>,
    /// Any JSON object.
    #[serde(default)]
    pub json_object: Option<bool>,
    #[serde(default)]
    pub grammar: Option<Box<RawValue>>,
    #[serde(default)]
    pub structural_tag: Option<Box<RawValue>>,
}
