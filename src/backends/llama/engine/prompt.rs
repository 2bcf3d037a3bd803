//! Prompts: from a submission to tokens, by template, tools, control tokens and overflow.

pub(super) mod answer_start;
pub(super) mod builder;
pub(super) mod control_tokens;
pub(super) mod overflow;
pub(super) mod python_json;
mod reshape;
mod schemas;
pub(super) mod template;
mod tokenise;
pub(super) mod tool_fallback;
pub(super) mod unprepared;
mod vocabulary;
