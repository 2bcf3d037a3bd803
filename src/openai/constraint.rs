//! Constraints on answers, under the names that servers gave them: `response_format` (OpenAI),
//! `json_schema` and `grammar` (llama-server), `guided_*` and `structured_outputs` (vLLM).

use serde::Deserialize;
use serde_json::value::RawValue;

use super::chat::{ChatRequest, ResponseFormat};
use super::completion::CompletionRequest;

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

/// The constraints of a request, which chat and raw prompts share; documented at the fields of
/// [`ChatRequest`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ConstraintFields<'r> {
    pub response_format: Option<&'r ResponseFormat>,
    pub json_schema: Option<&'r RawValue>,
    pub grammar: Option<&'r RawValue>,
    pub guided_json: Option<&'r RawValue>,
    pub guided_regex: Option<&'r str>,
    pub guided_choice: Option<&'r [String]>,
    pub guided_grammar: Option<&'r RawValue>,
    pub structured_outputs: Option<&'r StructuredOutputs>,
}

/// Both requests use the same field names.
macro_rules! constraint_fields {
    ($request:ty) => {
        impl $request {
            pub fn constraints(&self) -> ConstraintFields<'_> {
                ConstraintFields {
                    response_format: self.response_format.as_ref(),
                    json_schema: self.json_schema.as_deref(),
                    grammar: self.grammar.as_deref(),
                    guided_json: self.guided_json.as_deref(),
                    guided_regex: self.guided_regex.as_deref(),
                    guided_choice: self.guided_choice.as_deref(),
                    guided_grammar: self.guided_grammar.as_deref(),
                    structured_outputs: self.structured_outputs.as_ref(),
                }
            }
        }
    };
}

constraint_fields!(ChatRequest);
constraint_fields!(CompletionRequest);
