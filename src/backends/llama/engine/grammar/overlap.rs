//! Whether two schemas can share a value: alternatives of a `oneOf` that cannot are as good as
//! those of an `anyOf`.
//!
//! Pure. Says yes where it is not certain.

use serde_json::Value;

use super::references::References;

/// Most nested properties that are looked into.
const DEPTH: u8 = 8;
/// Most comparisons of two subschemas for one `oneOf`: a hostile schema has more than time.
const COMPARISONS: u32 = 50_000;

/// Types of values, as bits.
const KINDS: [(&str, u8); 7] = [
    ("null", 1),
    ("boolean", 2),
    ("integer", 4),
    ("number", 4 | 8),
    ("string", 16),
    ("array", 32),
    ("object", OBJECT),
];
const OBJECT: u8 = 64;
const ALL: u8 = 127;

/// Whether no value satisfies two of the options.
pub(super) fn exclude_each_other<'s>(options: &'s [Value], references: &References<'s>) -> bool {
    let mut comparison = Comparison { references, left: COMPARISONS };
    options.iter().enumerate().all(|(at, one)| {
        options[at + 1..].iter().all(|other| !comparison.overlap(one, other, DEPTH))
    })
}

struct Comparison<'r, 's> {
    references: &'r References<'s>,
    left: u32,
}

impl<'s> Comparison<'_, 's> {
    fn overlap(&mut self, one: &'s Value, other: &'s Value, depth: u8) -> bool {
        let (one, other) = (self.references.behind(one), self.references.behind(other));
        let (Some(depth), Some(left)) = (depth.checked_sub(1), self.left.checked_sub(1)) else {
            return true;
        };
        self.left = left;
        let common = kinds(one) & kinds(other);
        if common == 0 {
            return false;
        }
        if let (Some(some), Some(others)) = (literals(one), literals(other)) {
            return some.iter().any(|value| others.contains(value));
        }
        if common != OBJECT {
            return true;
        }
        let mut required = names(one).chain(names(other));
        !required.any(|name| match (property(one, name), property(other, name)) {
            (Some(one), Some(other)) => !self.overlap(one, other, depth),
            _ => false,
        })
    }
}

/// The types of values that a schema takes, by its own words only.
fn kinds(schema: &Value) -> u8 {
    let called = |name: &Value| {
        let known = KINDS.iter().find(|(kind, _)| name.as_str() == Some(kind));
        known.map_or(ALL, |(_, bits)| *bits)
    };
    let listed = match schema.get("type") {
        Some(Value::Array(names)) => names.iter().map(called).fold(0, |all, kind| all | kind),
        Some(name) => called(name),
        None => ALL,
    };
    let literal = literals(schema).map(|values| values.iter().map(kind).fold(0, |a, b| a | b));
    listed & literal.unwrap_or(ALL)
}

fn kind(value: &Value) -> u8 {
    let name = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    KINDS.iter().find(|(kind, _)| *kind == name).map_or(ALL, |(_, bits)| *bits)
}

/// The only values of a `const` or an `enum`.
fn literals(schema: &Value) -> Option<&[Value]> {
    let constant = schema.get("const").map(std::slice::from_ref);
    constant.or_else(|| schema.get("enum")?.as_array().map(Vec::as_slice))
}

fn names(schema: &Value) -> impl Iterator<Item = &str> {
    let required = schema.get("required").and_then(Value::as_array);
    required.into_iter().flatten().filter_map(Value::as_str)
}

fn property<'s>(schema: &'s Value, name: &str) -> Option<&'s Value> {
    schema.get("properties").and_then(|properties| properties.get(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_values_and_tags_tell_alternatives_apart() {
        let tagged = |tag: &str| json!({"type": "object", "properties": {"kind": {"const": tag}}, "required": ["kind"]});
        let root = json!({"$defs": {
            "cat": tagged("cat"),
            "dog": tagged("dog"),
            "alias": {"$ref": "#/$defs/cat"},
            "free": {"type": "object", "properties": {"kind": {"type": "string"}}},
            "untold": {"type": "object", "properties": {"kind": {"const": "x"}}},
        }});
        let of = |name: &str| json!({"$ref": format!("#/$defs/{name}")});
        let references = References::of(&root);
        for (options, apart) in [
            (json!([{"type": "string"}, {"type": "integer"}]), true),
            (json!([{"type": "number"}, {"type": "integer"}]), false),
            (json!([{"type": ["string", "null"]}, {"type": "null"}]), false),
            (json!([{"const": 1}, {"enum": [2, 3]}]), true),
            (json!([{"const": 1}, {"enum": [1, 3]}]), false),
            (json!([{"const": "a"}, {"type": "integer"}]), true),
            (json!([of("cat"), of("dog")]), true),
            (json!([of("cat"), of("alias")]), false),
            (json!([of("cat"), of("free")]), false),
            // Required of one side only: a value of both has it all the same.
            (json!([of("cat"), of("untold")]), true),
            (json!([of("cat"), {"type": "string"}, of("dog")]), true),
            (json!([{}, {"type": "string"}]), false),
        ] {
            let options = options.as_array().unwrap();
            assert_eq!(exclude_each_other(options, &references), apart, "{options:?}");
        }
    }
}
