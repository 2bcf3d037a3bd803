//! From a submission to the tokens of its prompt: template, tools, control tokens and overflow.

pub(super) mod builder;
pub(super) mod control_tokens;
pub(super) mod overflow;
pub(super) mod python_json;
pub(super) mod template;
pub(super) mod tool_fallback;
