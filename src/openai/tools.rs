//! Tools that a client offers, its choice among them, and the calls that a model makes.

use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// `type` of function tools, the only kind that local models support.
pub const FUNCTION: &str = "function";

/// A tool that a client offers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tool {
    /// `function`; other kinds are passed to upstreams that support them.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionDefinition>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FunctionDefinition {
    /// 1 to 64 letters, digits, `_` and `-`.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A JSON schema of type object, verbatim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Box<RawValue>>,
    /// Whether calls must match the schema exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

/// Whether the model may, must not or must call a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    Auto,
    None,
    Required,
    /// The model must call this function.
    Named(String),
    /// A kind of choice that only some upstreams support.
    Other(String),
}

impl<'de> Deserialize<'de> for ToolChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ChoiceVisitor;
        impl<'de> Visitor<'de> for ChoiceVisitor {
            type Value = ToolChoice;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "\"auto\", \"none\", \"required\" or {\"type\": \"function\", \"function\": {\"name\": …}}",
                )
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<ToolChoice, E> {
                match word {
                    "auto" => Ok(ToolChoice::Auto),
                    "none" => Ok(ToolChoice::None),
                    "required" => Ok(ToolChoice::Required),
                    _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ToolChoice, A::Error> {
                let named = NamedChoice::deserialize(de::value::MapAccessDeserializer::new(map))?;
                match named.function {
                    Some(function) if named.kind == FUNCTION => {
                        Ok(ToolChoice::Named(function.name))
                    }
                    None if named.kind == FUNCTION => Err(de::Error::missing_field(FUNCTION)),
                    _ => Ok(ToolChoice::Other(named.kind)),
                }
            }
        }
        deserializer.deserialize_any(ChoiceVisitor)
    }
}

#[derive(Deserialize)]
struct NamedChoice {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    function: Option<FunctionName>,
}

#[derive(Deserialize)]
struct FunctionName {
    name: String,
}

/// A call in the history of a conversation, and in a whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    pub id: String,
    /// `function` if absent.
    #[serde(rename = "type", default = "function_kind")]
    pub kind: String,
    /// Absent in calls of other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionCall>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCall {
    pub name: String,
    /// JSON text from the model, not validated.
    #[serde(default, deserialize_with = "arguments")]
    pub arguments: String,
}

fn function_kind() -> String {
    FUNCTION.to_owned()
}

/// Arguments as text. Some clients send them as JSON, or none as `null`.
fn arguments<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => text,
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    })
}

impl ToolCall {
    /// A function call without arguments yet.
    pub fn function(id: String, name: String) -> Self {
        let function = FunctionCall { name, arguments: String::new() };
        Self { id, kind: function_kind(), function: Some(function) }
    }
}

/// Addition of one stream chunk to a call.
#[derive(Debug, Serialize)]
pub struct ToolCallDelta<'a> {
    /// Index of the call in the answer.
    pub index: u32,
    /// In the call's first chunk only, like `type` and the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    pub function: FunctionCallDelta<'a>,
}

impl<'a> ToolCallDelta<'a> {
    pub fn begun(index: u32, id: &'a str, name: &'a str) -> Self {
        let function = FunctionCallDelta { name: Some(name), arguments: "" };
        Self { index, id: Some(id), kind: Some(FUNCTION), function }
    }

    pub fn continued(index: u32, arguments: &'a str) -> Self {
        let function = FunctionCallDelta { name: None, arguments };
        Self { index, id: None, kind: None, function }
    }
}

#[derive(Debug, Serialize)]
pub struct FunctionCallDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    /// The next piece of the arguments' JSON text.
    pub arguments: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_choice_is_a_keyword_or_names_a_function() {
        let choice = |json| serde_json::from_str::<ToolChoice>(json);
        assert_eq!(choice(r#""required""#).unwrap(), ToolChoice::Required);
        assert_eq!(
            choice(r#"{"type":"function","function":{"name":"f"}}"#).unwrap(),
            ToolChoice::Named("f".into())
        );
        assert_eq!(
            choice(r#"{"type":"allowed_tools","allowed_tools":{}}"#).unwrap(),
            ToolChoice::Other("allowed_tools".into())
        );
        for wrong in [r#""sometimes""#, "7", r#"{"type":"function"}"#, "{}"] {
            assert!(choice(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn arguments_are_read_as_text_whatever_they_are() {
        for (json, text) in [
            (r#"{"name":"f","arguments":"{\"a\":1}"}"#, r#"{"a":1}"#),
            (r#"{"name":"f","arguments":{"a":1}}"#, r#"{"a":1}"#),
            (r#"{"name":"f","arguments":null}"#, ""),
            (r#"{"name":"f"}"#, ""),
        ] {
            let call: FunctionCall = serde_json::from_str(json).unwrap();
            assert_eq!(call.arguments, text, "{json}");
        }
    }

    #[test]
    fn a_tool_keeps_its_schema_verbatim() {
        let json = r#"{"type":"function","function":{"name":"f","parameters":{"z":1.0,"a":2}}}"#;
        let tool: Tool = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&tool).unwrap(), json);
    }
}
