//! A call that must be made: how the answer begins with it, and what form keeps the rest to the tools' schemas.
//!
//! Pure.

use serde_json::{Value, json};

use super::constraint::Constraint;
use super::conversation::{MustCall, OfferedTool, ToolUse};
use super::dialect::CallFormat;

/// The beginning of such an answer and the form of what follows it.
#[derive(Debug, PartialEq, Eq)]
pub struct ForcedCall {
    pub beginning: String,
    /// By the schemas; and, where one of them cannot be worked with, by names alone.
    pub forms: [Constraint; 2],
}

impl ForcedCall {
    /// `None` where no call must be made.
    pub fn of(tools: &ToolUse, format: CallFormat) -> Option<Self> {
        let named = |name: &String| tools.tools.iter().find(|tool| tool.name == *name);
        let only = match (&tools.must_call, tools.tools.as_slice()) {
            (MustCall::No, _) => return None,
            (MustCall::Named(name), _) => named(name),
            (MustCall::Any, [tool]) => Some(tool),
            (MustCall::Any, _) => None,
        };
        let any = |_: &OfferedTool| json!({"type": "object"});
        Some(match only {
            Some(tool) => Self {
                beginning: format.beginning(Some(&tool.name)),
                forms: [Constraint::JsonSchema(tool.schema.clone()), Constraint::JsonObject],
            },
            None => Self {
                beginning: format.beginning(None),
                forms: [any_call(tools, format, schema), any_call(tools, format, any)],
            },
        })
    }
}

/// A whole call of one of the tools, the name first: then its arguments can be told as they come.
fn any_call(
    tools: &ToolUse,
    format: CallFormat,
    schema: impl Fn(&OfferedTool) -> Value,
) -> Constraint {
    let key = format.arguments_key();
    let call = |tool: &OfferedTool| {
        json!({
            "type": "object",
            "properties": {"name": {"const": tool.name}, key: schema(tool)},
            "required": ["name", key],
            "additionalProperties": false,
        })
    };
    let calls: Vec<Value> = tools.tools.iter().map(call).collect();
    Constraint::JsonSchema(json!({"anyOf": calls}).to_string())
}

fn schema(tool: &OfferedTool) -> Value {
    serde_json::from_str(&tool.schema).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(names: &[&str], must_call: MustCall) -> ToolUse {
        let tool = |name: &&str| OfferedTool {
            name: (*name).into(),
            schema: format!("{{\"title\":\"{name}\"}}"),
            json: String::new(),
        };
        ToolUse { tools: names.iter().map(tool).collect(), must_call, parallel: true }
    }

    #[test]
    fn the_only_tool_is_begun_up_to_its_arguments() {
        let named = tools(&["f", "g"], MustCall::Named("g".into()));
        let forced = ForcedCall::of(&named, CallFormat::Llama3).unwrap();
        assert_eq!(forced.beginning, "{\"name\": \"g\", \"parameters\":");
        assert_eq!(forced.forms[0], Constraint::JsonSchema("{\"title\":\"g\"}".into()));
        let single = ForcedCall::of(&tools(&["f"], MustCall::Any), CallFormat::Hermes).unwrap();
        assert_eq!(single.beginning, "<tool_call>\n{\"name\": \"f\", \"arguments\":");
        assert_eq!(ForcedCall::of(&tools(&["f"], MustCall::No), CallFormat::Hermes), None);
    }

    #[test]
    fn of_several_tools_the_model_chooses_by_name_first() {
        let both = tools(&["f", "g"], MustCall::Any);
        let forced = ForcedCall::of(&both, CallFormat::Mistral).unwrap();
        assert_eq!(forced.beginning, "[TOOL_CALLS][");
        let [Constraint::JsonSchema(schema), _] = &forced.forms else { panic!("a schema") };
        let first = r#"{"anyOf":[{"type":"object","properties":{"name":{"const":"f"},"arguments":{"title":"f"}},"#;
        assert!(schema.starts_with(first), "{schema}");
    }
}
