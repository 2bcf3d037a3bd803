//! Tools that a client offers, its choice among them, and the calls that a model makes.

use std::fmt;

use indexmap::IndexMap;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
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
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A JSON schema of type object, verbatim. An empty list counts as none: PHP writes an empty
    /// object so.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "schema")]
    pub parameters: Option<Box<RawValue>>,
    /// Whether calls must match the schema exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

fn schema<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    let schema = Option::<Box<RawValue>>::deserialize(deserializer)?;
    let is_empty_list = |schema: &RawValue| {
        let inside = schema.get().strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        inside.is_some_and(|inside| inside.trim().is_empty())
    };
    Ok(schema.filter(|schema| !is_empty_list(schema)))
}

/// `function_call` of a request: the older form of `tool_choice`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum FunctionChoice {
    /// `auto` or `none`.
    Word(String),
    Named {
        name: String,
    },
}

/// Whether the model may, must not or must call a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    Auto,
    None,
    Required,
    /// The model must call this function.
    Named(String),
    /// Only these functions may be called, and whether one must be.
    Allowed {
        names: Vec<String>,
        required: bool,
    },
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
                    // Mistral's and Anthropic's word.
                    "required" | "any" => Ok(ToolChoice::Required),
                    _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ToolChoice, A::Error> {
                let named = NamedChoice::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(match (named.kind.as_str(), named.function, named.name, named.allowed_tools) {
                    (FUNCTION, Some(FunctionName { name }), _, _)
                    | (FUNCTION, None, Some(name), _) => ToolChoice::Named(name),
                    (FUNCTION, None, None, _) => return Err(de::Error::missing_field(FUNCTION)),
                    ("allowed_tools", _, _, Some(allowed)) if allowed.are_functions() => {
                        allowed.choice()
                    }
                    _ => ToolChoice::Other(named.kind),
                })
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
    /// Instead of `function`, in the shape of the Responses API.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    allowed_tools: Option<AllowedTools>,
}

#[derive(Deserialize)]
struct AllowedTools {
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    tools: Vec<AllowedTool>,
}

#[derive(Deserialize)]
struct AllowedTool {
    #[serde(default)]
    function: Option<FunctionName>,
}

impl AllowedTools {
    fn are_functions(&self) -> bool {
        let known = matches!(self.mode.as_deref(), None | Some("auto" | "required"));
        known && !self.tools.is_empty() && self.tools.iter().all(|tool| tool.function.is_some())
    }

    fn choice(self) -> ToolChoice {
        let required = self.mode.as_deref() == Some("required");
        let names = self.tools.into_iter().filter_map(|tool| tool.function);
        ToolChoice::Allowed { names: names.map(|function| function.name).collect(), required }
    }
}

#[derive(Deserialize)]
struct FunctionName {
    name: String,
}

/// A call in the history of a conversation, and in a whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Empty if the client sent none.
    #[serde(default, deserialize_with = "text_or_null")]
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
    /// JSON text from the model, not validated. An object is taken for its text.
    #[serde(deserialize_with = "json_text")]
    pub arguments: String,
}

impl ToolCall {
    /// Memory that it holds, about.
    pub fn memory_bytes(&self) -> usize {
        let function = self.function.as_ref().map_or(0, FunctionCall::memory_bytes);
        size_of::<Self>() + self.id.len() + self.kind.len() + function
    }
}

impl FunctionCall {
    /// Memory that it holds besides itself, about.
    pub fn memory_bytes(&self) -> usize {
        self.name.len() + self.arguments.len()
    }
}

fn text_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn json_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct JsonText;
    impl<'de> Visitor<'de> for JsonText {
        type Value = String;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string of JSON or an object")
        }
        fn visit_unit<E>(self) -> Result<String, E> {
            Ok(String::new())
        }
        fn visit_str<E>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<String, A::Error> {
            let map = de::value::MapAccessDeserializer::new(map);
            let object = IndexMap::<String, Value>::deserialize(map)?;
            serde_json::to_string(&object).map_err(de::Error::custom)
        }
    }
    deserializer.deserialize_any(JsonText)
}

fn function_kind() -> String {
    FUNCTION.to_owned()
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
    fn other_apis_words_for_a_choice_are_known() {
        let choice = |json: &str| serde_json::from_str::<ToolChoice>(json).unwrap();
        assert_eq!(choice(r#""any""#), ToolChoice::Required);
        assert_eq!(choice(r#"{"type":"function","name":"f"}"#), ToolChoice::Named("f".into()));
        let allowed = |mode: &str| {
            choice(&format!(
                r#"{{"type":"allowed_tools","allowed_tools":{{"mode":"{mode}","tools":[
                    {{"type":"function","function":{{"name":"f"}}}}]}}}}"#
            ))
        };
        for (mode, required) in [("auto", false), ("required", true)] {
            assert_eq!(allowed(mode), ToolChoice::Allowed { names: vec!["f".into()], required });
        }
        assert_eq!(allowed("later"), ToolChoice::Other("allowed_tools".into()));
    }

    #[test]
    fn calls_of_the_history_are_read_as_other_clients_write_them() {
        let call = |json: &str| serde_json::from_str::<ToolCall>(json).unwrap();
        let plain = call(r#"{"function":{"name":"f","arguments":{"z":1,"a":[2]}}}"#);
        assert_eq!((plain.id.as_str(), plain.kind.as_str()), ("", "function"));
        assert_eq!(plain.function.unwrap().arguments, r#"{"z":1,"a":[2]}"#);
        let null = call(r#"{"id":null,"function":{"name":"f","arguments":null}}"#);
        assert_eq!((null.id.as_str(), null.function.unwrap().arguments.as_str()), ("", ""));
    }

    #[test]
    fn an_empty_list_is_no_schema() {
        let schema = |text: &str| {
            let json = format!(r#"{{"name":"f","parameters":{text}}}"#);
            let function: FunctionDefinition = serde_json::from_str(&json).unwrap();
            function.parameters.map(|schema| schema.get().to_owned())
        };
        assert_eq!([schema("[]"), schema("[ ]"), schema("null")], [None, None, None]);
        assert_eq!(schema("[1]").as_deref(), Some("[1]"));
    }

    #[test]
    fn a_tool_keeps_its_schema_verbatim() {
        let json = r#"{"type":"function","function":{"name":"f","parameters":{"z":1.0,"a":2}}}"#;
        let tool: Tool = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&tool).unwrap(), json);
    }
}
