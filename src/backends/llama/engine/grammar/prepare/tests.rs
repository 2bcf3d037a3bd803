//! Schemas before and after.

use serde_json::json;

use super::*;

fn strict(schema: &Value) -> Value {
    prepare(schema, false, Patterns::All).unwrap()
}

fn lenient(schema: &Value) -> Value {
    prepare(schema, true, Patterns::All).unwrap()
}

fn refusal(schema: &Value) -> String {
    prepare(schema, false, Patterns::All).unwrap_err().to_string()
}

#[test]
fn an_object_with_properties_is_closed_unless_it_says_otherwise() {
    let a = || json!({"type": "string"});
    for (given, closed) in [
        (json!({"properties": {"a": a()}}), true),
        (json!({"type": "object", "properties": {"a": a()}, "required": ["a"]}), true),
        (json!({"type": "object", "properties": {}}), true),
        (json!({"type": "object"}), false),
        (json!({"type": "object", "required": ["a"]}), false),
        (json!({"properties": {"a": a()}, "additionalProperties": true}), false),
        (json!({"properties": {"a": a()}, "additionalProperties": {}}), false),
        (json!({"properties": {"a": a()}, "unevaluatedProperties": true}), false),
        (json!({"properties": {"a": a()}, "unevaluatedProperties": false}), true),
        (json!({"properties": {"a": a()}, "patternProperties": {"^b": a()}}), true),
        (json!({"patternProperties": {"^b": a()}}), false),
        (json!({"properties": {"a": a()}, "minProperties": 2}), false),
        (json!({"properties": {"a": a()}, "minProperties": 1}), true),
    ] {
        let is_closed = |schema: &Value| schema.get("additionalProperties") == Some(&json!(false));
        assert_eq!(is_closed(&strict(&given)), closed, "{given}");
        let item = strict(&json!({"type": "array", "items": given}));
        assert_eq!(is_closed(&item["items"]), closed, "{given} as an item");
    }
    // A required member without a schema may come all the same.
    let named = strict(&json!({"properties": {"a": a()}, "required": ["a", "b"]}));
    assert_eq!(named["properties"]["b"], json!(true));
}

#[test]
fn an_object_of_several_parts_is_closed_as_a_whole() {
    let base = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let with_b = json!({"properties": {"b": {"type": "string"}}, "required": ["c"]});
    let open = json!({"type": "object", "properties": {}, "additionalProperties": true});
    for (given, names) in [
        (json!({"allOf": [base, with_b]}), "a b c"),
        (json!({"properties": {"d": {}}, "anyOf": [base, with_b]}), "d a b c"),
        (json!({"$ref": "#/$defs/base", "properties": {"d": {}}, "$defs": {"base": base}}), "a d"),
        (json!({"properties": {"a": {}}, "anyOf": [{"required": ["a"]}]}), "a"),
        (json!({"properties": {"a": {}}, "dependentRequired": {"a": ["b"]}}), "a b"),
        (json!({"properties": {"a": {}}, "if": {}, "then": with_b}), "a b c"),
    ] {
        let written = lenient(&given);
        let mut found: Vec<&str> =
            written["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut names: Vec<&str> = names.split(' ').collect();
        found.sort_unstable();
        names.sort_unstable();
        assert_eq!(found, names, "{given}");
        assert_eq!(written["additionalProperties"], json!(false), "{given}");
        let inner = written["allOf"][0].get("additionalProperties");
        assert_eq!(inner, None, "a part stays open: {written}");
    }
    let written = strict(&json!({"allOf": [base, open]}));
    assert_eq!(written.get("additionalProperties"), None, "{written}");
    // One part only: it is closed itself.
    let single = strict(&json!({"allOf": [base], "type": "object", "title": "A"}));
    assert_eq!(single["allOf"][0]["additionalProperties"], json!(false));
}

#[test]
fn a_definition_is_closed_where_it_stands_alone_and_open_where_it_is_a_part() {
    let given = json!({
        "$defs": {"base": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "properties": {
            "alone": {"$ref": "#/$defs/base"},
            "part": {"allOf": [{"$ref": "#/$defs/base"}, {"properties": {"b": {}}}]},
        },
    });
    let written = strict(&given);
    let alone = written["properties"]["alone"]["$ref"].as_str().unwrap();
    let part = written["properties"]["part"]["allOf"][0]["$ref"].as_str().unwrap();
    let closed = |to: &str| written.pointer(&to[1..]).unwrap().get("additionalProperties");
    assert_eq!((closed(alone), closed(part)), (Some(&json!(false)), None), "{written}");
}

#[test]
fn references_of_every_kind_lead_to_plain_ones() {
    let given = json!({
        "$defs": {"a/b": {"$anchor": "x", "type": "object", "properties": {"next": {"$ref": "#x"}}}},
        "properties": {"one": {"$ref": "#/$defs/a~1b"}, "two": {"$ref": "#x"}},
    });
    let written = strict(&given);
    assert_eq!(written["properties"]["one"], json!({"$ref": "#/$defs/0"}));
    assert_eq!(written["properties"]["two"], json!({"$ref": "#/$defs/0"}));
    assert_eq!(written["$defs"]["0"]["properties"]["next"], json!({"$ref": "#/$defs/0"}));
    assert!(
        refusal(&json!({"$ref": "#/$defs/none"})).contains("\"#/$defs/none\" leads to no place")
    );
}

#[test]
fn a_reference_to_itself_is_refused_and_a_recursive_schema_is_not() {
    let twice = json!({"$ref": "#/$defs/a", "$defs": {
        "a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"},
    }});
    for circle in
        [json!({"$ref": "#"}), json!({"properties": {"a": twice}, "$defs": twice["$defs"]})]
    {
        assert!(refusal(&circle).contains("leads back to itself"), "{circle}");
    }
    strict(&json!({"type": "object", "properties": {"next": {"$ref": "#", "type": "object"}}}));
}

#[test]
fn keywords_beyond_the_grammar_are_named_or_left_out() {
    for (key, value) in [
        ("uniqueItems", json!(true)),
        ("propertyNames", json!({"pattern": "^a"})),
        ("not", json!({"type": "null"})),
        ("contains", json!({})),
        ("dependentRequired", json!({"a": ["b"]})),
        ("unevaluatedItems", json!(false)),
    ] {
        let given = json!({"type": "array", key: value});
        assert!(refusal(&given).contains(&format!("\"{key}\" cannot be enforced")), "{key}");
        assert_eq!(lenient(&given), json!({"type": "array"}), "{key}");
    }
    for (key, value) in [
        ("uniqueItems", json!(false)),
        ("minContains", json!(1)),
        ("then", json!({})),
        ("if", json!({})),
        ("format", json!("path")),
        ("x-own", json!(1)),
        ("nullable", json!(true)),
        ("description", json!("d")),
    ] {
        assert_eq!(strict(&json!({"type": "string", key: value})), json!({"type": "string"}));
    }
    let nonsense = json!({"type": "string", "format": "nonsense"});
    assert!(refusal(&nonsense).contains("\"format\": \"nonsense\" cannot be enforced"));
    assert_eq!(lenient(&nonsense), json!({"type": "string"}));
    let kept = json!({"type": "string", "format": "uuid", "minLength": 1, "pattern": "(?=a)"});
    assert_eq!(strict(&kept), kept);
    let regular = prepare(&kept, true, Patterns::Regular).unwrap();
    assert_eq!(regular.get("pattern"), None);
    // Members may have the names of keywords.
    let members = json!({"properties": {"not": {"type": "string"}, "$ref": {"type": "string"}}});
    assert_eq!(strict(&members)["properties"], members["properties"]);
}

#[test]
fn alternatives_that_exclude_each_other_are_any_of_them() {
    let tagged = |tag: &str| json!({"type": "object", "properties": {"kind": {"const": tag}}, "required": ["kind"]});
    let defs = json!({"n": tagged("n"), "a": tagged("a"), "m": tagged("n")});
    let of = |names: [&str; 2]| {
        let options = names.map(|name| json!({"$ref": format!("#/$defs/{name}")}));
        json!({"oneOf": options, "discriminator": {"propertyName": "kind"}, "$defs": defs})
    };
    assert!(strict(&of(["n", "a"])).get("anyOf").is_some());
    assert!(strict(&of(["n", "m"])).get("oneOf").is_some());
    assert!(lenient(&of(["n", "m"])).get("anyOf").is_some());
}
