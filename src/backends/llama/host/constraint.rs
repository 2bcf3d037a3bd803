//! The constraint of a request, whichever server's name it has.
//!
//! Pure. A constraint that local models cannot keep is refused by its name rather than ignored: an
//! answer without it looks right and is not.

use serde_json::value::RawValue;

use super::refusal::{invalid, unsupported};
use crate::backends::backend::{ErrorKind, RequestFault};
use crate::backends::llama::wire::constraint::Constraint;
use crate::openai::{ConstraintFields, Request, ResponseFormat, StructuredOutputs};

/// A field and the constraint in it.
type Named = (&'static str, Constraint);

/// The name of the field with the request's constraint.
pub(super) fn field(request: &Request) -> &'static str {
    let fields = match request {
        Request::Chat(request) => request.constraints(),
        Request::Completion(request) => request.constraints(),
        Request::Embedding(_) => ConstraintFields::default(),
    };
    let named = only(&fields).ok().flatten();
    named.map_or("response_format", |(field, _)| field)
}

/// The constraint of a request.
pub(super) fn constraint(fields: &ConstraintFields<'_>) -> Result<Option<Constraint>, ErrorKind> {
    Ok(only(fields)?.map(|(_, constraint)| constraint))
}

/// The only constraint, or the stricter of two that agree.
fn only(fields: &ConstraintFields<'_>) -> Result<Option<Named>, ErrorKind> {
    let mut only: Option<Named> = None;
    for (field, constraint) in given(fields)? {
        only = Some(match (only, constraint) {
            (None, constraint) => (field, constraint),
            (Some((_, Constraint::JsonObject)), schema @ Constraint::JsonSchema { .. }) => {
                (field, schema)
            }
            (Some(first), Constraint::JsonObject)
                if matches!(first.1, Constraint::JsonSchema { .. } | Constraint::JsonObject) =>
            {
                first
            }
            (Some(first), constraint) if first.1 == constraint => first,
            (Some((first, _)), _) => {
                return Err(wrong(field, &format!("cannot be combined with `{first}`")));
            }
        });
    }
    Ok(only)
}

fn given(fields: &ConstraintFields<'_>) -> Result<Vec<Named>, ErrorKind> {
    let mut given = Vec::new();
    if let Some(format) = fields.response_format {
        given.extend(format_constraint(format)?.map(|constraint| ("response_format", constraint)));
    }
    for (field, json) in [("json_schema", fields.json_schema), ("guided_json", fields.guided_json)]
    {
        if let Some(json) = json {
            given.push((field, schema(field, json, false)?));
        }
    }
    if let Some(regex) = fields.guided_regex {
        given.push(("guided_regex", pattern("guided_regex", regex)?));
    }
    if let Some(texts) = fields.guided_choice {
        given.push(("guided_choice", choice("guided_choice", texts)?));
    }
    if let Some(outputs) = fields.structured_outputs {
        given.extend(structured(outputs)?);
    }
    Ok(given)
}

/// vLLM's newer field; messages name the member at fault.
fn structured(outputs: &StructuredOutputs) -> Result<Vec<Named>, ErrorKind> {
    let mut given = Vec::new();
    for (field, value) in [
        ("structured_outputs.grammar", &outputs.grammar),
        ("structured_outputs.structural_tag", &outputs.structural_tag),
    ] {
        if value.is_some() {
            return Err(unsupported(field, "this kind of constraint"));
        }
    }
    if let Some(json) = &outputs.json {
        let field = "structured_outputs.json";
        given.push((field, schema(field, json, false)?));
    }
    if let Some(regex) = &outputs.regex {
        let field = "structured_outputs.regex";
        given.push((field, pattern(field, regex)?));
    }
    if let Some(texts) = &outputs.choice {
        let field = "structured_outputs.choice";
        given.push((field, choice(field, texts)?));
    }
    if outputs.json_object == Some(true) {
        given.push(("structured_outputs.json_object", Constraint::JsonObject));
    }
    Ok(given)
}

fn format_constraint(format: &ResponseFormat) -> Result<Option<Constraint>, ErrorKind> {
    let field = "response_format";
    let named = format.json_schema.as_ref();
    match format.kind.as_str() {
        "text" => Ok(None),
        "json_object" => Ok(Some(match &format.schema {
            Some(json) => schema("response_format.schema", json, false)?,
            None => Constraint::JsonObject,
        })),
        "json_schema" => {
            let strict = named.and_then(|format| format.strict).unwrap_or(false);
            if let Some(json) = named.and_then(|format| format.schema.as_ref()) {
                return schema("response_format.json_schema.schema", json, strict).map(Some);
            }
            let missing = "`response_format` of type `json_schema` needs `json_schema.schema`";
            let beside = format.schema.as_ref().ok_or_else(|| invalid(field, missing))?;
            schema("response_format.schema", beside, strict).map(Some)
        }
        other => Err(invalid(
            field,
            format!(
                "local models support a `response_format` of type `text`, `json_object` or `json_schema`, not `{other}`"
            ),
        )),
    }
}

/// A schema, or vLLM's text of one.
fn schema(field: &str, json: &RawValue, strict: bool) -> Result<Constraint, ErrorKind> {
    let text = serde_json::from_str(json.get()).unwrap_or_else(|_| json.get().to_owned());
    let is_schema = text.trim_start().starts_with('{') || text.trim() == "true";
    if !is_schema || serde_json::from_str::<&RawValue>(&text).is_err() {
        return Err(wrong(field, "must be a JSON schema, which is an object"));
    }
    Ok(Constraint::JsonSchema { schema: text, strict })
}

fn pattern(field: &str, regex: &str) -> Result<Constraint, ErrorKind> {
    if regex.is_empty() {
        return Err(wrong(field, "must not be empty"));
    }
    Ok(Constraint::Regex(regex.to_owned()))
}

fn choice(field: &str, texts: &[String]) -> Result<Constraint, ErrorKind> {
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        return Err(wrong(field, "must hold at least one text, and no empty one"));
    }
    Ok(Constraint::Choice(texts.to_vec()))
}

/// An error of a field that is wrong for every model.
fn wrong(path: &str, rule: &str) -> ErrorKind {
    let field = path.split('.').next();
    RequestFault::new(format!("`{path}` {rule}"), field, None).of_request()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::openai::{ChatRequest, CompletionRequest};

    fn of(more: &Value) -> Result<Option<Constraint>, ErrorKind> {
        let mut chat = json!({"model": "m", "messages": []});
        let mut raw = json!({"model": "m", "prompt": "a"});
        for body in [&mut chat, &mut raw] {
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        }
        let chat: ChatRequest = serde_json::from_str(&chat.to_string()).unwrap();
        let raw: CompletionRequest = serde_json::from_str(&raw.to_string()).unwrap();
        let found = constraint(&chat.constraints());
        assert_eq!(found, constraint(&raw.constraints()), "{more}");
        found
    }

    #[test]
    fn every_servers_name_of_a_constraint_is_honoured() {
        let schema = json!({"type": "object"});
        let lenient = || Constraint::JsonSchema { schema: schema.to_string(), strict: false };
        let strict = || Constraint::JsonSchema { schema: schema.to_string(), strict: true };
        let choice = || Constraint::Choice(vec!["a".into(), "b".into()]);
        let regex = || Constraint::Regex("a+".into());
        let format = |format: Value| json!({"response_format": format});
        let object = || Constraint::JsonObject;
        for (more, expected) in [
            (json!({}), None),
            (json!({"response_format": null, "guided_json": null, "grammar": null}), None),
            (json!({"grammar": ""}), None),
            (format(json!({"type": "text"})), None),
            (format(json!({"type": "json_object"})), Some(object())),
            (format(json!({"type": "json_object", "schema": schema})), Some(lenient())),
            (format(json!({"type": "json_object", "schema": null})), Some(object())),
            (
                format(json!({"type": "json_schema", "json_schema": {"schema": schema}})),
                Some(lenient()),
            ),
            (
                format(
                    json!({"type": "json_schema", "json_schema": {"schema": schema, "strict": true}}),
                ),
                Some(strict()),
            ),
            (format(json!({"type": "json_schema", "schema": schema})), Some(lenient())),
            (json!({"json_schema": schema}), Some(lenient())),
            (json!({"guided_json": schema}), Some(lenient())),
            (json!({"guided_json": schema.to_string()}), Some(lenient())),
            (json!({"guided_regex": "a+"}), Some(regex())),
            (json!({"guided_choice": ["a", "b"]}), Some(choice())),
            (json!({"structured_outputs": {"json": schema, "regex": null}}), Some(lenient())),
            (json!({"structured_outputs": {"regex": "a+"}}), Some(regex())),
            (json!({"structured_outputs": {"choice": ["a", "b"]}}), Some(choice())),
            (json!({"structured_outputs": {"json_object": true}}), Some(object())),
            (json!({"structured_outputs": {}}), None),
            (
                json!({"response_format": {"type": "json_object"}, "json_schema": schema}),
                Some(lenient()),
            ),
            (
                json!({"guided_json": schema, "structured_outputs": {"json": schema}}),
                Some(lenient()),
            ),
        ] {
            assert_eq!(of(&more).unwrap(), expected, "{more}");
        }
    }

    #[test]
    fn what_is_wrong_or_unknown_is_named() {
        let format = |format: Value| json!({"response_format": format});
        for (more, param, elsewhere) in [
            (json!({"structured_outputs": {"grammar": "a"}}), "structured_outputs.grammar", true),
            (format(json!({"type": "structural_tag"})), "response_format", true),
            (format(json!({"type": "json_schema"})), "response_format", true),
            (format(json!({"type": "json_object", "schema": 123})), "response_format", false),
            (
                format(json!({"type": "json_schema", "json_schema": {"schema": "x"}})),
                "response_format",
                false,
            ),
            (json!({"json_schema": []}), "json_schema", false),
            (json!({"guided_json": "{"}), "guided_json", false),
            (json!({"guided_regex": ""}), "guided_regex", false),
            (json!({"guided_choice": []}), "guided_choice", false),
            (json!({"guided_regex": "a", "guided_choice": ["b"]}), "guided_choice", false),
        ] {
            let error = of(&more).unwrap_err();
            assert_eq!(error.another_could_answer(), elsewhere, "{more}");
            let (ErrorKind::InvalidRequest(fault) | ErrorKind::Unsupported(fault)) = error else {
                panic!("{more}");
            };
            assert_eq!(fault.param.as_deref(), Some(param), "{more}");
        }
    }
}
