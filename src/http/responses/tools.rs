//! Tools and the choice among them, as chat has them. Pure.
//!
//! A custom tool, whose input is any text, becomes a function of one text, and its calls come back
//! as calls of a custom tool. Tools that OpenAI itself runs are refused by name.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::request::ToolOffer;
use super::words::unsupported_tool;
use crate::http::error::ApiError;
use crate::http::extract::fields::wrong;
use crate::openai::Tool;
use crate::openai::tools::{FUNCTION, FunctionDefinition};

const CUSTOM: &str = "custom";

/// The one parameter of a function that stands for a custom tool.
const INPUT: &str = "input";

pub(super) fn offers(tools: Vec<ToolOffer>) -> Result<Vec<Tool>, ApiError> {
    tools.into_iter().enumerate().map(|(place, tool)| offer(place, tool)).collect()
}

fn offer(place: usize, tool: ToolOffer) -> Result<Tool, ApiError> {
    let path = format!("tools[{place}]");
    let name = || tool.name.clone().ok_or_else(|| wrong(&format!("{path}.name"), "is missing"));
    let function = match tool.kind.as_str() {
        FUNCTION => FunctionDefinition {
            name: name()?,
            description: tool.description,
            parameters: tool.parameters,
            strict: tool.strict,
        },
        CUSTOM => FunctionDefinition {
            name: name()?,
            description: custom_description(tool.description, tool.format.as_ref()),
            parameters: Some(custom_parameters()),
            strict: None,
        },
        kind => return Err(unsupported_tool(format!("{path}.type"), kind)),
    };
    Ok(Tool { kind: FUNCTION.to_owned(), function: Some(function) })
}

/// Names of the custom tools.
pub(super) fn custom_names(tools: &[ToolOffer]) -> Vec<String> {
    let custom = tools.iter().filter(|tool| tool.kind == CUSTOM);
    custom.filter_map(|tool| tool.name.clone()).collect()
}

fn custom_parameters() -> Box<RawValue> {
    let schema = json!({
        "type": "object",
        "properties": {INPUT: {"type": "string"}},
        "required": [INPUT],
        "additionalProperties": false,
    });
    serde_json::value::to_raw_value(&schema).unwrap_or_default()
}

/// The description, with the grammar that the input must follow, if there is one.
fn custom_description(description: Option<String>, format: Option<&Value>) -> Option<String> {
    let grammar = format.and_then(|format| format.get("definition")).and_then(Value::as_str);
    let Some(grammar) = grammar else { return description };
    let description = description.unwrap_or_default();
    Some(format!("{description}\n\n`{INPUT}` follows this grammar:\n{grammar}"))
}

/// Arguments of the function that stands for a custom tool.
pub(super) fn custom_arguments(input: &str) -> String {
    json!({INPUT: input}).to_string()
}

/// The input of a custom tool, from the arguments of its function; as they are where a model did
/// not keep to the form.
pub(super) fn custom_input(arguments: &str) -> String {
    #[derive(Deserialize)]
    struct Arguments {
        input: String,
    }
    let read = serde_json::from_str::<Arguments>(arguments);
    read.map_or_else(|_| arguments.to_owned(), |read| read.input)
}

/// The choice in chat's words.
pub(super) fn choice(choice: Value) -> Result<Value, ApiError> {
    let Value::Object(object) = &choice else { return Ok(choice) };
    let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
    let named = |tool: &Value| json!({"type": FUNCTION, "function": {"name": tool.get("name")}});
    match kind {
        FUNCTION | CUSTOM if object.contains_key("name") => Ok(named(&choice)),
        "allowed_tools" => {
            let tools = object.get("tools").and_then(Value::as_array).into_iter().flatten();
            let allowed = json!({
                "mode": object.get("mode"),
                "tools": tools.map(named).collect::<Vec<_>>(),
            });
            Ok(json!({"type": "allowed_tools", "allowed_tools": allowed}))
        }
        FUNCTION | CUSTOM => Err(wrong("tool_choice.name", "is missing")),
        kind => Err(unsupported_tool("tool_choice.type".to_owned(), kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_told_in_chats_words() {
        let named = |name: &str| json!({"type": "function", "function": {"name": name}});
        for (given, wanted) in [
            (json!("required"), json!("required")),
            (json!({"type": "function", "name": "f"}), named("f")),
            (json!({"type": "custom", "name": "c"}), named("c")),
            (
                json!({"type": "allowed_tools", "mode": "auto", "tools": [
                    {"type": "function", "name": "f"}]}),
                json!({"type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [named("f")]}}),
            ),
        ] {
            assert_eq!(choice(given).unwrap(), wanted);
        }
        for hosted in ["file_search", "web_search", "mcp"] {
            let error = choice(json!({"type": hosted})).unwrap_err();
            assert!(error.to_string().contains(hosted), "{error}");
        }
    }

    #[test]
    fn a_custom_tool_is_a_function_of_one_text() {
        let tool: ToolOffer = serde_json::from_str(
            r#"{"type":"custom","name":"patch","description":"Applies a patch.",
                "format":{"type":"grammar","syntax":"lark","definition":"start: X"}}"#,
        )
        .unwrap();
        assert_eq!(custom_names(std::slice::from_ref(&tool)), ["patch"]);
        let function = offers(vec![tool]).unwrap().remove(0).function.unwrap();
        assert!(function.description.unwrap().ends_with("start: X"));
        assert!(function.parameters.unwrap().get().contains(r#""required":["input"]"#));
        assert_eq!(custom_input(&custom_arguments("*** a\n\"b\"")), "*** a\n\"b\"");
        assert_eq!(custom_input("no json"), "no json");
    }
}
