//! Shapes of answers: sequences of tags, fixed text and JSON by schema.
//!
//! Pure. Fixed text follows Python's `json.dumps`, because models saw that in training.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::backends::llama::engine::tool_format::{ARGS, CALL_ID, CallFormat};
use crate::backends::llama::engine::tool_schema::{
    Parameter, alone, choices, is_any_text, is_text, parameters, takes_text,
};
use crate::backends::llama::wire::constraint::{Constraint, GrammarError};
use crate::backends::llama::wire::conversation::{MustCall, OfferedTool, ToolUse};

/// Alternative sequences; the answer is one of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AnswerShape(pub Vec<Vec<Part>>);

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    /// A tag of the model's format, which may be a control token.
    Tag(&'static str),
    Text(String),
    /// Optional spaces and line ends.
    Blank,
    Json(Schema),
    /// Any text up to and including this terminator.
    Until(&'static str),
    OneOf(Vec<String>),
    /// Text that matches this expression as a whole.
    Regex(String),
    /// Optional parts.
    Maybe(Vec<Part>),
    /// A call id as models generate it.
    Id,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Schema {
    pub(crate) json: Value,
    /// Ignore keywords that cannot be enforced, rather than refuse them.
    pub(crate) lenient: bool,
}

impl AnswerShape {
    /// The answer that a client requests.
    pub(crate) fn of(constraint: &Constraint) -> Result<Self, GrammarError> {
        let part = match constraint {
            Constraint::JsonObject => {
                Part::Json(Schema { json: json!({"type": "object"}), lenient: false })
            }
            Constraint::JsonSchema { schema, strict } => {
                let json = match serde_json::from_str(schema) {
                    Ok(Value::Bool(true)) => json!({}),
                    Ok(schema) => schema,
                    Err(error) => return Err(GrammarError::NotJson(error.to_string())),
                };
                if !json.is_object() {
                    return Err(GrammarError::Unsupported("it must be an object".to_owned()));
                }
                Part::Json(Schema { json, lenient: !strict })
            }
            Constraint::Regex(regex) => Part::Regex(regex.clone()),
            Constraint::Choice(texts) => Part::OneOf(texts.clone()),
        };
        Ok(Self(vec![vec![part]]))
    }

    /// One call of any allowed tool, after its tag.
    pub(crate) fn call(tools: &ToolUse, format: CallFormat) -> Self {
        let may_call = |tool: &&OfferedTool| match &tools.must_call {
            MustCall::No | MustCall::Any => true,
            MustCall::Named(name) => tool.name == *name,
        };
        let called = tools.tools.iter().filter(may_call);
        Self(called.map(|tool| [vec![Part::Blank], call(tool, format)].concat()).collect())
    }

    /// The beginning of every call: its tag, after which `call` applies. In formats without a tag,
    /// the call itself.
    pub(crate) fn call_begins(tools: &ToolUse, format: CallFormat) -> Self {
        match opening(format) {
            "" => Self::call(tools, format),
            _ => Self(vec![vec![Part::Tag(format.opener())]]),
        }
    }

    /// All schemas of the shape.
    pub(crate) fn schemas(&self) -> impl Iterator<Item = &Schema> {
        self.parts().filter_map(|part| match part {
            Part::Json(schema) => Some(schema),
            _ => None,
        })
    }

    /// All regular expressions of the shape.
    pub(crate) fn regexes(&self) -> impl Iterator<Item = &str> {
        self.parts().filter_map(|part| match part {
            Part::Regex(regex) => Some(regex.as_str()),
            _ => None,
        })
    }

    /// Terminators of the free texts, each once.
    pub(crate) fn ends(&self) -> impl Iterator<Item = &'static str> {
        let ends = self.parts().filter_map(|part| match part {
            Part::Until(end) => Some(*end),
            _ => None,
        });
        ends.collect::<BTreeSet<_>>().into_iter()
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.0.iter().flatten().flat_map(|part| match part {
            Part::Maybe(parts) => parts.as_slice(),
            _ => std::slice::from_ref(part),
        })
    }

    /// Either shape.
    #[must_use]
    pub(crate) fn or(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

/// The certain beginning of an answer that must be a call, so that the model need not generate it.
/// Ends before the arguments, at a token boundary.
pub(crate) fn forced_beginning(tools: &ToolUse, format: CallFormat) -> Option<String> {
    let mut certain = opening(format).to_owned();
    let only = match (&tools.must_call, tools.tools.as_slice()) {
        (MustCall::No, _) => return None,
        (MustCall::Named(name), _) => Some(name),
        (MustCall::Any, [only]) => Some(&only.name),
        (MustCall::Any, _) => None,
    };
    if let Some(name) = only {
        certain.push_str(head(name, format).trim_end());
    }
    Some(certain)
}

/// Text before the call itself.
fn opening(format: CallFormat) -> &'static str {
    match format {
        CallFormat::Hermes | CallFormat::QwenCoder => "<tool_call>\n",
        CallFormat::Llama3 => "",
        CallFormat::Mistral => "[TOOL_CALLS][",
        CallFormat::MistralArgs => "[TOOL_CALLS]",
    }
}

/// The call up to its arguments, or to an id before them. A tool's name has letters, digits, `_`
/// and `-` only, so it needs no JSON escapes.
fn head(name: &str, format: CallFormat) -> String {
    match format {
        CallFormat::Hermes | CallFormat::Llama3 | CallFormat::Mistral => {
            format!("{{\"name\": \"{name}\", \"{}\": ", format.arguments_key())
        }
        CallFormat::MistralArgs => name.to_owned(),
        CallFormat::QwenCoder => format!("<function={name}"),
    }
}

fn call(tool: &OfferedTool, format: CallFormat) -> Vec<Part> {
    let head = Part::Text(head(&tool.name, format));
    let text = |text: &str| Part::Text(text.to_owned());
    match format {
        CallFormat::Hermes | CallFormat::Llama3 | CallFormat::Mistral => {
            vec![head, Part::Json(schema(tool)), text("}")]
        }
        CallFormat::MistralArgs => {
            let id = Part::Maybe(vec![Part::Tag(CALL_ID), Part::Id]);
            vec![head, id, Part::Tag(ARGS), Part::Json(schema(tool))]
        }
        CallFormat::QwenCoder => {
            let Schema { json: root, lenient } = schema(tool);
            let mut parts = vec![head, text(">\n")];
            match parameters(&root) {
                Some(parameters) => {
                    parts.extend(parameters.iter().flat_map(|p| argument(p, &root, lenient)));
                    parts.push(text("</function>"));
                }
                None => parts.push(Part::Until("</function>")),
            }
            parts
        }
    }
}

/// One argument in Qwen3-Coder's format.
fn argument(parameter: &Parameter<'_>, root: &Value, lenient: bool) -> Vec<Part> {
    let Parameter { name, schema, required } = parameter;
    let mut parts = vec![Part::Text(format!("<parameter={name}>\n"))];
    let end = Part::Text("\n</parameter>\n".to_owned());
    match choices(schema) {
        Some(texts) if !texts.is_empty() => {
            parts.extend([Part::OneOf(texts.into_iter().map(str::to_owned).collect()), end]);
        }
        _ if takes_text(schema, root) => parts.push(Part::Until("</parameter>\n")),
        _ => parts.extend([Part::Json(Schema { json: alone(schema, root), lenient }), end]),
    }
    if *required { parts } else { vec![Part::Maybe(parts)] }
}

/// Returns an error for a strict tool whose arguments this format cannot constrain.
pub(crate) fn check_spelling(tool: &OfferedTool, format: CallFormat) -> Result<(), GrammarError> {
    if !tool.strict || !format.spells_each_argument() {
        return Ok(());
    }
    let Schema { json: root, .. } = schema(tool);
    let refused = |what: String| Err(GrammarError::Unsupported(what));
    let Some(parameters) = parameters(&root) else {
        return refused(
            "this model's call format requires an object schema with only `properties`".to_owned(),
        );
    };
    for Parameter { name, schema, .. } in parameters {
        let unkeepable = takes_text(schema, &root)
            && choices(schema).is_none()
            && !(is_text(schema, &root) && is_any_text(schema));
        if unkeepable {
            return refused(format!(
                "this model's call format cannot enforce bounds on the text `{name}`"
            ));
        }
    }
    Ok(())
}

/// The schema of a tool's arguments.
pub(crate) fn schema(tool: &OfferedTool) -> Schema {
    let json = serde_json::from_str(&tool.schema).unwrap_or_else(|_| json!({"type": "object"}));
    Schema { json, lenient: !tool.strict }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(names: &[&str], must_call: MustCall) -> ToolUse {
        let tool = |name: &&str| OfferedTool::new(name, "", &format!("{{\"title\":\"{name}\"}}"));
        ToolUse { tools: names.iter().map(tool).collect(), must_call, parallel: true }
    }

    fn text(text: &str) -> Part {
        Part::Text(text.to_owned())
    }

    fn arguments(name: &str) -> Part {
        Part::Json(Schema { json: json!({"title": name}), lenient: true })
    }

    #[test]
    fn a_forced_answer_begins_as_far_as_it_is_certain() {
        let named = tools(&["f", "g"], MustCall::Named("g".into()));
        let any = tools(&["f", "g"], MustCall::Any);
        for (format, one, several) in [
            (CallFormat::Hermes, "<tool_call>\n{\"name\": \"g\", \"arguments\":", "<tool_call>\n"),
            (CallFormat::Llama3, "{\"name\": \"g\", \"parameters\":", ""),
            (CallFormat::Mistral, "[TOOL_CALLS][{\"name\": \"g\", \"arguments\":", "[TOOL_CALLS]["),
            (CallFormat::MistralArgs, "[TOOL_CALLS]g", "[TOOL_CALLS]"),
            (CallFormat::QwenCoder, "<tool_call>\n<function=g", "<tool_call>\n"),
        ] {
            let only = tools(&["g"], MustCall::Any);
            assert_eq!(forced_beginning(&named, format).as_deref(), Some(one));
            assert_eq!(forced_beginning(&only, format).as_deref(), Some(one));
            assert_eq!(forced_beginning(&any, format).as_deref(), Some(several));
            assert_eq!(forced_beginning(&tools(&["f"], MustCall::No), format), None);
        }
    }

    #[test]
    fn a_call_is_of_a_tool_that_may_be_called() {
        let called = |name: &str| {
            let head = format!("{{\"name\": \"{name}\", \"arguments\": ");
            vec![Part::Blank, Part::Text(head), arguments(name), text("}")]
        };
        let any = AnswerShape::call(&tools(&["f", "g"], MustCall::Any), CallFormat::Mistral);
        assert_eq!(any, AnswerShape(vec![called("f"), called("g")]));
        let named = tools(&["f", "g"], MustCall::Named("g".into()));
        assert_eq!(AnswerShape::call(&named, CallFormat::Hermes), AnswerShape(vec![called("g")]));
        let tag = AnswerShape(vec![vec![Part::Tag("<tool_call>")]]);
        assert_eq!(AnswerShape::call_begins(&named, CallFormat::Hermes), tag);
        let whole = AnswerShape::call(&named, CallFormat::Llama3);
        assert_eq!(AnswerShape::call_begins(&named, CallFormat::Llama3), whole);
    }

    #[test]
    fn arguments_that_are_spelled_one_by_one_follow_their_types() {
        let schema = json!({"type": "object", "required": ["path"], "properties": {
            "path": {"type": "string"}, "mode": {"enum": ["r", "w"]}, "lines": {"type": "integer"},
        }});
        let mut used = tools(&[], MustCall::Any);
        used.tools.push(OfferedTool::new("open", "", &schema.to_string()));
        let form = &AnswerShape::call(&used, CallFormat::QwenCoder).0[0];
        let end = || text("\n</parameter>\n");
        let integer = Schema { json: json!({"type": "integer"}), lenient: true };
        let modes = Part::OneOf(vec!["r".into(), "w".into()]);
        assert_eq!(
            form[1..],
            [
                text("<function=open"),
                text(">\n"),
                text("<parameter=path>\n"),
                Part::Until("</parameter>\n"),
                Part::Maybe(vec![text("<parameter=mode>\n"), modes, end()]),
                Part::Maybe(vec![text("<parameter=lines>\n"), Part::Json(integer), end()]),
                text("</function>"),
            ]
        );
    }

    #[test]
    fn a_strict_text_with_bounds_is_refused_only_where_it_stands_as_it_is() {
        let strict = |property: Value| {
            let schema = json!({"type": "object", "properties": {"a": property}});
            OfferedTool { strict: true, ..OfferedTool::new("f", "", &schema.to_string()) }
        };
        let bounded = strict(json!({"type": "string", "pattern": "^a"}));
        let error = check_spelling(&bounded, CallFormat::QwenCoder).unwrap_err();
        assert!(error.to_string().contains("`a`"), "{error}");
        assert_eq!(check_spelling(&bounded, CallFormat::Hermes), Ok(()));
        for kept in [json!({"type": "string"}), json!({"enum": ["a"]}), json!({"type": "integer"})]
        {
            assert_eq!(check_spelling(&strict(kept), CallFormat::QwenCoder), Ok(()));
        }
    }

    #[test]
    fn a_schema_must_be_an_object_and_true_is_any_json() {
        let of = |text: &str| {
            AnswerShape::of(&Constraint::JsonSchema { schema: text.to_owned(), strict: true })
        };
        assert_eq!(of("true"), of("{}"));
        assert!(matches!(of("7"), Err(GrammarError::Unsupported(_))));
        assert!(matches!(of("{"), Err(GrammarError::NotJson(_))));
    }
}
