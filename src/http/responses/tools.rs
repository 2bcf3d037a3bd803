//! Tools and the choice among them, as chat has them. Pure.
//!
//! A custom tool, whose input is any text, becomes a function of one text, and a tool in a
//! namespace one whose name begins with it; calls come back in the client's words. Tools that
//! OpenAI itself runs are refused by name.

use std::collections::HashMap;

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
const NAMESPACE: &str = "namespace";

/// The one parameter of a function that stands for a custom tool.
const INPUT: &str = "input";

/// A tool in the client's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meant {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) custom: bool,
}

/// The tools whose functions stand for something else.
#[derive(Debug, Default)]
pub struct Names(HashMap<String, Meant>);

impl Names {
    /// What a call of `function` means.
    pub(super) fn meant(&self, function: String) -> Meant {
        let plain = |name| Meant { name, namespace: None, custom: false };
        self.0.get(&function).cloned().unwrap_or_else(|| plain(function))
    }
}

/// The functions to offer, and what they stand for.
pub(super) fn offers(tools: Vec<ToolOffer>) -> Result<(Vec<Tool>, Names), ApiError> {
    let (mut functions, mut names) = (Vec::with_capacity(tools.len()), Names::default());
    for (place, tool) in tools.into_iter().enumerate() {
        let path = format!("tools[{place}]");
        if tool.kind != NAMESPACE {
            functions.push(offer(tool, None, &path, &mut names)?);
            continue;
        }
        let namespace = tool.name.ok_or_else(|| wrong(&format!("{path}.name"), "is missing"))?;
        for (inner, tool) in tool.tools.unwrap_or_default().into_iter().enumerate() {
            let path = format!("{path}.tools[{inner}]");
            functions.push(offer(tool, Some(&namespace), &path, &mut names)?);
        }
    }
    Ok((functions, names))
}

fn offer(
    tool: ToolOffer,
    namespace: Option<&str>,
    path: &str,
    names: &mut Names,
) -> Result<Tool, ApiError> {
    let custom = tool.kind == CUSTOM;
    if !custom && tool.kind != FUNCTION {
        return Err(unsupported_tool(format!("{path}.type"), &tool.kind));
    }
    let own = tool.name.ok_or_else(|| wrong(&format!("{path}.name"), "is missing"))?;
    let name = function_name(&own, namespace);
    if custom || namespace.is_some() {
        let namespace = namespace.map(str::to_owned);
        names.0.insert(name.clone(), Meant { name: own, namespace, custom });
    }
    let function = if custom {
        FunctionDefinition {
            name,
            description: custom_description(tool.description, tool.format.as_ref()),
            parameters: Some(custom_parameters()),
            strict: None,
        }
    } else {
        let ToolOffer { description, parameters, strict, .. } = tool;
        FunctionDefinition { name, description, parameters, strict }
    };
    Ok(Tool { kind: FUNCTION.to_owned(), function: Some(function) })
}

/// The function that stands for a tool, in a namespace or not.
pub(super) fn function_name(name: &str, namespace: Option<&str>) -> String {
    namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}__{name}"))
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
    let text = |tool: &Value, member| tool.get(member).and_then(Value::as_str).map(str::to_owned);
    let named = |tool: &Value| {
        let name = text(tool, "name").unwrap_or_default();
        let name = function_name(&name, text(tool, NAMESPACE).as_deref());
        json!({"type": FUNCTION, "function": {"name": name}})
    };
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
        let (mut tools, names) = offers(vec![tool]).unwrap();
        assert!(names.meant("patch".into()).custom && !names.meant("other".into()).custom);
        let function = tools.remove(0).function.unwrap();
        assert!(function.description.unwrap().ends_with("start: X"));
        assert!(function.parameters.unwrap().get().contains(r#""required":["input"]"#));
        assert_eq!(custom_input(&custom_arguments("*** a\n\"b\"")), "*** a\n\"b\"");
        assert_eq!(custom_input("no json"), "no json");
    }

    #[test]
    fn a_tool_in_a_namespace_has_its_name_back_when_it_is_called() {
        let tool: ToolOffer = serde_json::from_str(
            r#"{"type":"namespace","name":"agents","description":"d","tools":[
                {"type":"function","name":"spawn","parameters":{"type":"object"}}]}"#,
        )
        .unwrap();
        let (tools, names) = offers(vec![tool]).unwrap();
        assert_eq!(tools[0].function.as_ref().unwrap().name, "agents__spawn");
        let meant = names.meant("agents__spawn".into());
        assert_eq!((&*meant.name, meant.namespace.as_deref()), ("spawn", Some("agents")));
    }
}
