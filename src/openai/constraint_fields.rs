//! Constraint fields, which chat and raw-prompt requests share: one view of both.

use serde_json::value::RawValue;

use super::chat::ChatRequest;
use super::completion::CompletionRequest;
use super::constraint::{ResponseFormat, StructuredOutputs};

/// The constraints of a request, which chat and raw prompts share; documented at the fields of
/// [`ChatRequest`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ConstraintFields<'r> {
    pub response_format: Option<&'r ResponseFormat>,
    pub json_schema: Option<&'r RawValue>,
    pub guided_json: Option<&'r RawValue>,
    pub guided_regex: Option<&'r str>,
    pub guided_choice: Option<&'r [String]>,
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
                    guided_json: self.guided_json.as_deref(),
                    guided_regex: self.guided_regex.as_deref(),
                    guided_choice: self.guided_choice.as_deref(),
                    structured_outputs: self.structured_outputs.as_ref(),
                }
            }
        }
    };
}

constraint_fields!(ChatRequest);
constraint_fields!(CompletionRequest);
