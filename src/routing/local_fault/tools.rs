//! Tools that local models cannot be offered, and choices among tools that they cannot make.

use std::collections::HashSet;

use super::fault::LocalFault;
use crate::openai::error::UNSUPPORTED_TOOL;
use crate::openai::tools::{FUNCTION, FunctionDefinition};
use crate::openai::{ChatRequest, Tool, ToolChoice};

/// Longest name of a function, that of the Model Context Protocol.
const NAME_BYTES_MAX: usize = 128;

pub(super) fn faults(request: &ChatRequest, faults: &mut Vec<LocalFault>) {
    let tools = request.tools.as_deref().unwrap_or_default();
    for (place, tool) in tools.iter().enumerate() {
        faults.extend(of_tool(tool, &format!("tools[{place}]")));
    }
    faults.extend(of_choice(request.tool_choice.as_ref(), tools));
    if !tools.is_empty() && request.functions.iter().flatten().next().is_some() {
        faults.push(LocalFault::value("functions", "and `tools` exclude each other"));
    }
}

fn of_tool(tool: &Tool, path: &str) -> Option<LocalFault> {
    match &tool.function {
        Some(function) if tool.kind == FUNCTION => {
            of_function(function, &format!("{path}.function"))
        }
        None if tool.kind == FUNCTION => {
            Some(LocalFault::value(format!("{path}.function"), "must describe the function"))
        }
        _ => Some(other_kind(format!("{path}.type"), &tool.kind)),
    }
}

fn other_kind(param: String, kind: &str) -> LocalFault {
    let message = format!("`{param}`: local models support tools of type `function`, not `{kind}`");
    LocalFault { param, message, code: UNSUPPORTED_TOOL }
}

fn of_function(function: &FunctionDefinition, path: &str) -> Option<LocalFault> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    let name = &function.name;
    if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(allowed) {
        let rule = "must be 1 to 128 letters, digits, underscores, hyphens and dots";
        return Some(LocalFault::value(format!("{path}.name"), rule));
    }
    let is_object = |schema: &str| schema.starts_with('{');
    let schema = function.parameters.as_ref().filter(|schema| !is_object(schema.get()));
    let rule = "must be a JSON schema, which is an object";
    schema.map(|_| LocalFault::value(format!("{path}.parameters"), rule))
}

fn of_choice(choice: Option<&ToolChoice>, tools: &[Tool]) -> Option<LocalFault> {
    let functions = tools.iter().filter_map(|tool| tool.function.as_ref());
    let names: HashSet<&String> = functions.map(|function| &function.name).collect();
    let known = |name: &String| names.contains(name);
    let wrong = |rule: &str| Some(LocalFault::value("tool_choice", rule));
    match choice? {
        ToolChoice::Other(kind) => Some(other_kind("tool_choice".to_owned(), kind)),
        ToolChoice::Required | ToolChoice::Named(_) | ToolChoice::Allowed { .. }
            if tools.is_empty() =>
        {
            wrong("asks for a call, but `tools` offers nothing to call")
        }
        ToolChoice::Named(name) if !known(name) => {
            wrong("names a function that is not among the `tools`")
        }
        ToolChoice::Allowed { names, .. } if !names.iter().all(known) => {
            wrong("allows a function that is not among the `tools`")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    fn fault(more: &Value) -> Option<(String, &'static str)> {
        let mut body = json!({"model": "m", "messages": []});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let request = serde_json::from_str(&body.to_string()).unwrap();
        let mut faults = Vec::new();
        super::faults(&request, &mut faults);
        faults.into_iter().next().map(|fault| (fault.param, fault.code))
    }

    #[test]
    fn tools_and_choices_beyond_local_models_are_named() {
        let function = |function: Value| json!({"type": "function", "function": function});
        let f = function(json!({"name": "f"}));
        let named = |name: &str| json!({"type": "function", "function": {"name": name}});
        let allowed = |name: &str| {
            let tools = [named(name)];
            json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": tools}})
        };
        for (more, param, code) in [
            (json!({"tools": [{"type": "function"}]}), "tools[0].function", "invalid_value"),
            (
                json!({"tools": [f, function(json!({"name": "no spaces"}))]}),
                "tools[1].function.name",
                "invalid_value",
            ),
            (
                json!({"tools": [function(json!({"name": ""}))]}),
                "tools[0].function.name",
                "invalid_value",
            ),
            (
                json!({"tools": [function(json!({"name": "n".repeat(129)}))]}),
                "tools[0].function.name",
                "invalid_value",
            ),
            (
                json!({"tools": [function(json!({"name": "f", "parameters": [1]}))]}),
                "tools[0].function.parameters",
                "invalid_value",
            ),
            (json!({"tools": [{"type": "web_search"}]}), "tools[0].type", "unsupported_tool"),
            (
                json!({"tools": [{"type": "custom", "custom": {"name": "c"}}]}),
                "tools[0].type",
                "unsupported_tool",
            ),
            (json!({"tools": [f], "tool_choice": named("g")}), "tool_choice", "invalid_value"),
            (json!({"tools": [f], "tool_choice": allowed("g")}), "tool_choice", "invalid_value"),
            (
                json!({"tools": [f], "tool_choice": {"type": "custom"}}),
                "tool_choice",
                "unsupported_tool",
            ),
            (json!({"tool_choice": "required"}), "tool_choice", "invalid_value"),
            (json!({"tools": [f], "functions": [{"name": "g"}]}), "functions", "invalid_value"),
        ] {
            assert_eq!(fault(&more), Some((param.to_owned(), code)), "{more}");
        }
        let dotted = function(json!({"name": "a.b-c_".repeat(20), "parameters": []}));
        for fine in [
            json!({"tools": [dotted], "tool_choice": "any"}),
            json!({"tools": [f], "tool_choice": allowed("f")}),
            json!({"tools": []}),
        ] {
            assert_eq!(fault(&fine), None, "{fine}");
        }
    }
}
