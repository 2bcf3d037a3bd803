//! Checks the tools of a request, as far as every model agrees on them.

use super::fields::wrong;
use crate::http::error::ApiError;
use crate::openai::tools::{FUNCTION, FunctionDefinition};
use crate::openai::{ChatRequest, Message, Role, Tool, ToolChoice};

/// Longest name of a function.
const NAME_BYTES_MAX: usize = 64;

pub(super) fn check_tools(request: &ChatRequest) -> Result<(), ApiError> {
    let tools = request.tools.as_deref().unwrap_or_default();
    for (place, tool) in tools.iter().enumerate() {
        check_tool(tool, &format!("tools[{place}]"))?;
    }
    check_choice(request.tool_choice.as_ref(), tools)?;
    let unasked = |message: &Message| message.role == Role::Tool && message.tool_call_id.is_none();
    match request.messages.iter().position(unasked) {
        Some(place) => Err(wrong(
            &format!("messages[{place}].tool_call_id"),
            "must say which call this is the result of",
        )),
        None => Ok(()),
    }
}

fn check_tool(tool: &Tool, path: &str) -> Result<(), ApiError> {
    match &tool.function {
        Some(function) => check_function(function, &format!("{path}.function")),
        None if tool.kind == FUNCTION => {
            Err(wrong(&format!("{path}.function"), "must describe the function"))
        }
        // Other kinds are for the models that know them.
        None => Ok(()),
    }
}

fn check_function(function: &FunctionDefinition, path: &str) -> Result<(), ApiError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let name = &function.name;
    if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(allowed) {
        let message = "must be 1 to 64 letters, digits, underscores and hyphens";
        return Err(wrong(&format!("{path}.name"), message));
    }
    let is_object = |schema: &str| schema.starts_with('{');
    match &function.parameters {
        Some(schema) if !is_object(schema.get()) => {
            Err(wrong(&format!("{path}.parameters"), "must be a JSON schema, which is an object"))
        }
        _ => Ok(()),
    }
}

fn check_choice(choice: Option<&ToolChoice>, tools: &[Tool]) -> Result<(), ApiError> {
    let known = |name: &String| {
        tools.iter().any(|tool| tool.function.as_ref().is_some_and(|f| f.name == *name))
    };
    match choice {
        Some(ToolChoice::Required | ToolChoice::Named(_)) if tools.is_empty() => {
            Err(wrong("tool_choice", "asks for a call, but `tools` offers nothing to call"))
        }
        Some(ToolChoice::Named(name)) if !known(name) => {
            Err(wrong("tool_choice", "names a function that is not among the `tools`"))
        }
        _ => Ok(()),
    }
}
