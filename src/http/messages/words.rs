//! Names of fields, and faults of a conversation in Anthropic's sentences. Pure.

use crate::http::error::ApiError;
use crate::openai::error::UNSUPPORTED_TOOL;
use crate::routing::LocalFault;

/// Fields of chat and what this surface calls them.
pub const FIELDS: &[(&str, &str)] = &[
    ("max_completion_tokens", "max_tokens"),
    ("stop", "stop_sequences"),
    ("response_format", "output_config.format"),
];

/// A result in the turn at `path` that answers no call.
pub(super) fn without_call(path: &str, id: &str) -> ApiError {
    let message = format!(
        "`{path}`: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each \
         `tool_result` block must have a corresponding `tool_use` block in the previous message."
    );
    ApiError::InvalidField { param: path.to_owned(), message }
}

/// A call that has no result.
pub(super) fn unanswered(id: &str) -> ApiError {
    let message =
        format!("`tool_use` ids were found without `tool_result` blocks immediately after: {id}.");
    ApiError::InvalidField { param: "messages".to_owned(), message }
}

pub(super) fn unsupported_tool(param: String, kind: &str) -> ApiError {
    let message = format!(
        "`{param}`: models here call tools with an `input_schema`; `{kind}` is one of Anthropic's \
         own"
    );
    ApiError::LocalFault(LocalFault { param, message, code: UNSUPPORTED_TOOL })
}
