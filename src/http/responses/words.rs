//! Faults of a request in the words of this surface. Pure.

use crate::http::error::ApiError;
use crate::openai::error::UNSUPPORTED_TOOL;
use crate::routing::LocalFault;

/// Fields of chat and what this surface calls them.
pub const FIELDS: &[(&str, &str)] = &[
    ("messages", "input"),
    ("max_completion_tokens", "max_output_tokens"),
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
    ("reasoning_effort", "reasoning.effort"),
];

/// A fault of the conversation as a whole, in OpenAI's sentence.
pub(super) fn input_fault(message: String) -> ApiError {
    ApiError::InvalidField { param: "input".to_owned(), message }
}

pub(super) fn unsupported_tool(param: String, kind: &str) -> ApiError {
    let message = format!(
        "`{param}`: models here call tools of the types `function` and `custom`; `{kind}` is a \
         service of OpenAI's own"
    );
    ApiError::LocalFault(LocalFault { param, message, code: UNSUPPORTED_TOOL })
}
