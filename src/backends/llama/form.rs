//! What an answer, or the rest of one, must look like: tags, fixed text and JSON by schema, in a row.
//!
//! Pure. Fixed text is spelled as Python's `json.dumps` spells it, because that is what models saw in training.

use serde_json::{Value, json};

use super::constraint::{Constraint, GrammarError};
use super::conversation::{MustCall, OfferedTool, ToolUse};
use super::dialect::CallFormat;

/// Sequences of which the answer must be one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Form(pub Vec<Vec<Part>>);

#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// A tag of the model's dialect, which may be a control token.
    Tag(&'static str),
    Text(String),
    /// Nothing, or a few spaces and line ends.
    Blank,
    Json(Schema),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    pub json: Value,
    /// Pass over what cannot be kept to, rather than refuse it.
    pub lenient: bool,
}

impl Form {
    /// JSON as a client demands it.
    pub fn of(constraint: &Constraint) -> Result<Self, GrammarError> {
        let json = match constraint {
            Constraint::JsonObject => json!({"type": "object"}),
            Constraint::JsonSchema(text) => match serde_json::from_str(text) {
                Ok(Value::Bool(true)) => json!({}),
                Ok(schema) => schema,
                Err(error) => return Err(GrammarError::NotJson(error.to_string())),
            },
        };
        if !json.is_object() {
            return Err(GrammarError::Unsupported("it must be an object".to_owned()));
        }
        Ok(Self(vec![vec![Part::Json(Schema { json, lenient: false })]]))
    }

    /// A tool's arguments alone.
    pub fn arguments(tool: &OfferedTool) -> Self {
        Self(vec![vec![Part::Json(schema(tool))]])
    }

    /// One call of any of the tools: what comes after its tag.
    pub fn call(tools: &ToolUse, format: CallFormat) -> Self {
        let call = |tool: &OfferedTool| [vec![Part::Blank], call(tool, format)].concat();
        Self(tools.tools.iter().map(call).collect())
    }

    /// As `call`, tag included.
    pub fn tagged_call(tools: &ToolUse, format: CallFormat) -> Self {
        let call = |tool: &OfferedTool| [opening(format), call(tool, format)].concat();
        Self(tools.tools.iter().map(call).collect())
    }

    /// This form or the other.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

/// An answer that must be a call.
#[derive(Debug, PartialEq)]
pub struct ForcedCall {
    /// How every such answer begins: a model that may not reason first need not write it itself.
    pub beginning: String,
    /// What follows the beginning.
    pub rest: Form,
    /// Both.
    pub whole: Form,
}

impl ForcedCall {
    /// `None` where no call must be made.
    pub fn of(tools: &ToolUse, format: CallFormat) -> Option<Self> {
        let may_call = |tool: &&OfferedTool| match &tools.must_call {
            MustCall::No => false,
            MustCall::Any => true,
            MustCall::Named(name) => tool.name == *name,
        };
        let called: Vec<&OfferedTool> = tools.tools.iter().filter(may_call).collect();
        let calls = called.iter().map(|tool| call(tool, format));
        let mut beginning: String = opening(format).iter().map(spelling).collect();
        let whole = calls.clone().map(|call| [opening(format), call].concat()).collect();
        let rest = match called.as_slice() {
            [] => return None,
            [only] => {
                // The blank before the arguments is left to the model: it belongs to the same token as their brace.
                beginning.push_str(head(only, format).trim_end());
                vec![vec![Part::Blank, Part::Json(schema(only)), tail()]]
            }
            _ => calls.collect(),
        };
        Some(Self { beginning, rest: Form(rest), whole: Form(whole) })
    }
}

/// What comes before a call's object.
fn opening(format: CallFormat) -> Vec<Part> {
    let text = |text: &str| Part::Text(text.to_owned());
    match format {
        CallFormat::Hermes => vec![Part::Tag(format.opener()), text("\n")],
        CallFormat::Llama3 => Vec::new(),
        CallFormat::Mistral => vec![Part::Tag(format.opener()), text("[")],
    }
}

/// The name comes first: then the arguments can be told as they come.
fn call(tool: &OfferedTool, format: CallFormat) -> Vec<Part> {
    vec![Part::Text(head(tool, format)), Part::Json(schema(tool)), tail()]
}

fn head(tool: &OfferedTool, format: CallFormat) -> String {
    // Names are letters, digits, `_` and `-`: JSON strings as they are.
    format!("{{\"name\": \"{}\", \"{}\": ", tool.name, format.arguments_key())
}

fn tail() -> Part {
    Part::Text("}".to_owned())
}

fn schema(tool: &OfferedTool) -> Schema {
    let json = serde_json::from_str(&tool.schema).unwrap_or_else(|_| json!({"type": "object"}));
    Schema { json, lenient: !tool.strict }
}

fn spelling(part: &Part) -> &str {
    match part {
        Part::Tag(tag) => tag,
        Part::Text(text) => text,
        Part::Blank | Part::Json(_) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(names: &[&str], must_call: MustCall) -> ToolUse {
        let tool = |name: &&str| OfferedTool::new(name, "", &format!("{{\"title\":\"{name}\"}}"));
        ToolUse { tools: names.iter().map(tool).collect(), must_call, parallel: true }
    }

    fn arguments(name: &str) -> Part {
        Part::Json(Schema { json: json!({"title": name}), lenient: true })
    }

    #[test]
    fn the_only_tool_is_begun_up_to_its_arguments() {
        let named = tools(&["f", "g"], MustCall::Named("g".into()));
        let forced = ForcedCall::of(&named, CallFormat::Llama3).unwrap();
        assert_eq!(forced.beginning, "{\"name\": \"g\", \"parameters\":");
        assert_eq!(forced.rest, Form(vec![vec![Part::Blank, arguments("g"), tail()]]));
        let single = ForcedCall::of(&tools(&["f"], MustCall::Any), CallFormat::Hermes).unwrap();
        assert_eq!(single.beginning, "<tool_call>\n{\"name\": \"f\", \"arguments\":");
        assert_eq!(ForcedCall::of(&tools(&["f"], MustCall::No), CallFormat::Hermes), None);
    }

    #[test]
    fn of_several_tools_the_model_chooses_by_name_first() {
        let forced =
            ForcedCall::of(&tools(&["f", "g"], MustCall::Any), CallFormat::Mistral).unwrap();
        assert_eq!(forced.beginning, "[TOOL_CALLS][");
        let call = |name: &str| {
            let head = format!("{{\"name\": \"{name}\", \"arguments\": ");
            vec![Part::Text(head), arguments(name), tail()]
        };
        assert_eq!(forced.rest, Form(vec![call("f"), call("g")]));
        let opened =
            |name| [vec![Part::Tag("[TOOL_CALLS]"), Part::Text("[".into())], call(name)].concat();
        assert_eq!(forced.whole, Form(vec![opened("f"), opened("g")]));
    }

    #[test]
    fn a_schema_must_be_an_object_and_true_is_any_json() {
        let of = |text: &str| Form::of(&Constraint::JsonSchema(text.to_owned()));
        assert_eq!(of("true"), of("{}"));
        assert!(matches!(of("7"), Err(GrammarError::Unsupported(_))));
        assert!(matches!(of("{"), Err(GrammarError::NotJson(_))));
    }
}
