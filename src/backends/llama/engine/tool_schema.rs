//! Types of a tool's arguments by its schema, for formats with one tag per argument: text verbatim,
//! other values as JSON.
//!
//! Pure. Considers types only; the grammar enforces values.

use serde_json::{Map, Value};

/// One parameter of a tool.
#[derive(Debug, PartialEq)]
pub(crate) struct Parameter<'s> {
    pub(crate) name: &'s str,
    pub(crate) schema: &'s Value,
    pub(crate) required: bool,
}

/// The parameters in the schema's order; `None` if others are allowed or the set varies.
pub(crate) fn parameters(schema: &Value) -> Option<Vec<Parameter<'_>>> {
    const KNOWN: [&str; 9] = [
        "type",
        "properties",
        "required",
        "additionalProperties",
        "$defs",
        "definitions",
        "$schema",
        "title",
        "description",
    ];
    let object = schema.as_object()?;
    if !object.keys().all(|key| KNOWN.contains(&key.as_str())) {
        return None;
    }
    let Some(Value::Object(properties)) = object.get("properties") else {
        let closed = object.get("additionalProperties") == Some(&Value::Bool(false));
        return closed.then(Vec::new);
    };
    let required = object.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|n| n == name));
    let parameter = |(name, schema)| Parameter { name, schema, required: is_required(name) };
    Some(properties.iter().map(|(name, schema)| parameter((name.as_str(), schema))).collect())
}

/// The schema of the named parameter; any value if unknown.
pub(crate) fn of_name<'s>(schema: &'s Value, name: &str) -> &'s Value {
    schema.get("properties").and_then(|properties| properties.get(name)).unwrap_or(&Value::Null)
}

/// A subschema with its root's definitions, so that it is self-contained.
pub(crate) fn alone(part: &Value, root: &Value) -> Value {
    let Value::Object(fields) = part else { return part.clone() };
    let mut alone: Map<String, Value> = fields.clone();
    for key in ["$defs", "definitions"] {
        if let Some(definitions) = root.get(key) {
            alone.insert(key.to_owned(), definitions.clone());
        }
    }
    Value::Object(alone)
}

/// The allowed texts, if the schema is nothing but such a choice.
pub(crate) fn choices(schema: &Value) -> Option<Vec<&str>> {
    let constant = schema.get("const").map(std::slice::from_ref);
    let listed = constant.or_else(|| schema.get("enum")?.as_array().map(Vec::as_slice))?;
    listed.iter().map(Value::as_str).collect()
}

/// Whether the schema allows any text.
pub(crate) fn is_any_text(schema: &Value) -> bool {
    const FREE: [&str; 6] = ["type", "title", "description", "default", "examples", "$comment"];
    schema.as_object().is_some_and(|fields| fields.keys().all(|key| FREE.contains(&key.as_str())))
}

/// Types of values in schemas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Boolean,
    Integer,
    Number,
    Text,
    Array,
    Object,
}

/// Maximum references followed: some are cyclic.
const REFERENCES: u8 = 16;

/// Whether only text is allowed, or text among others.
pub(crate) fn is_text(schema: &Value, root: &Value) -> bool {
    takes_text(schema, root)
        && [Kind::Null, Kind::Boolean, Kind::Integer, Kind::Array, Kind::Object]
            .iter()
            .all(|kind| !takes(schema, root, *kind, REFERENCES))
}

pub(crate) fn takes_text(schema: &Value, root: &Value) -> bool {
    takes(schema, root, Kind::Text, REFERENCES)
}

/// The value of an argument's text: JSON if the schema allows that type, else the text.
pub(crate) fn meant(text: &str, schema: &Value, root: &Value) -> Value {
    let json = match text.trim() {
        // Python's spelling: templates use it.
        "True" => Some(Value::Bool(true)),
        "False" => Some(Value::Bool(false)),
        "None" => Some(Value::Null),
        trimmed => serde_json::from_str(trimmed).ok(),
    };
    let fits = |value: &Value| !value.is_string() || !takes_text(schema, root);
    match json {
        Some(value) if fits(&value) && takes(schema, root, kind(&value), REFERENCES) => value,
        _ => Value::from(text),
    }
}

fn kind(value: &Value) -> Kind {
    match value {
        Value::Null => Kind::Null,
        Value::Bool(_) => Kind::Boolean,
        Value::Number(number) if number.is_f64() => Kind::Number,
        Value::Number(_) => Kind::Integer,
        Value::String(_) => Kind::Text,
        Value::Array(_) => Kind::Array,
        Value::Object(_) => Kind::Object,
    }
}

/// Whether the schema allows values of this type. Unknown keywords allow any.
fn takes(schema: &Value, root: &Value, kind: Kind, left: u8) -> bool {
    let Some(left) = left.checked_sub(1) else { return true };
    let Value::Object(fields) = schema else { return schema != &Value::Bool(false) };
    fields.iter().all(|(key, value)| match (key.as_str(), value) {
        ("type", Value::String(name)) => is_called(kind, name),
        ("type", Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).any(|name| is_called(kind, name))
        }
        ("const", value) => self::kind(value) == kind,
        ("enum", Value::Array(values)) => values.iter().any(|value| self::kind(value) == kind),
        ("anyOf" | "oneOf", Value::Array(options)) => {
            options.iter().any(|option| takes(option, root, kind, left))
        }
        ("allOf", Value::Array(parts)) => parts.iter().all(|part| takes(part, root, kind, left)),
        ("$ref", Value::String(place)) => {
            let found = place.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
            found.is_none_or(|found| takes(found, root, kind, left))
        }
        _ => true,
    })
}

fn is_called(kind: Kind, name: &str) -> bool {
    match kind {
        Kind::Null => name == "null",
        Kind::Boolean => name == "boolean",
        Kind::Integer => name == "integer" || name == "number",
        Kind::Number => name == "number",
        Kind::Text => name == "string",
        Kind::Array => name == "array",
        Kind::Object => name == "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_means_what_its_schema_takes() {
        let root = json!({"$defs": {"name": {"type": "string"}, "loop": {"$ref": "#/$defs/loop"}}});
        for (text, schema, value) in [
            ("5", json!({"type": "integer"}), json!(5)),
            ("5", json!({"type": "string"}), json!("5")),
            ("5", json!({"$ref": "#/$defs/name"}), json!("5")),
            ("5", json!({"anyOf": [{"type": "string"}, {"type": "null"}]}), json!("5")),
            ("null", json!({"anyOf": [{"type": "string"}, {"type": "null"}]}), json!(null)),
            ("None", json!({"type": ["string", "null"]}), json!(null)),
            ("True", json!({"type": "boolean"}), json!(true)),
            ("True", json!({"enum": ["True", "False"]}), json!("True")),
            ("[1, 2]", json!({"type": "array"}), json!([1, 2])),
            ("1.5", json!({"type": "integer"}), json!("1.5")),
            ("red", json!({"type": "integer"}), json!("red")),
            ("\"a\"", json!({"type": "string"}), json!("\"a\"")),
            ("{\"a\": 1}", json!({}), json!({"a": 1})),
            ("a", json!({"$ref": "#/$defs/loop"}), json!("a")),
        ] {
            assert_eq!(meant(text, &schema, &root), value, "{text} {schema}");
        }
    }

    #[test]
    fn only_texts_may_be_streamed() {
        let root = json!({});
        for schema in [
            json!({"type": "string"}),
            json!({"enum": ["a", "b"]}),
            json!({"const": "a"}),
            json!({"anyOf": [{"type": "string", "minLength": 3}, {"const": "a"}]}),
        ] {
            assert!(is_text(&schema, &root), "{schema}");
        }
        for schema in
            [json!({}), json!(null), json!({"type": ["string", "null"]}), json!({"enum": ["a", 1]})]
        {
            assert!(!is_text(&schema, &root) && takes_text(&schema, &root), "{schema}");
        }
    }

    #[test]
    fn parameters_are_listed_only_if_complete() {
        let schema = json!({"type": "object", "properties": {"a": {}, "b": {}}, "required": ["b"]});
        let names: Vec<(&str, bool)> =
            parameters(&schema).unwrap().iter().map(|p| (p.name, p.required)).collect();
        assert_eq!(names, [("a", false), ("b", true)]);
        assert_eq!(
            parameters(&json!({"type": "object", "additionalProperties": false})),
            Some(vec![])
        );
        assert_eq!(parameters(&json!({"type": "object"})), None);
        assert_eq!(parameters(&json!({"properties": {}, "anyOf": []})), None);
    }
}
