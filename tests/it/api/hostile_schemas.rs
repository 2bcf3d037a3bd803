//! Schemas that are expensive on purpose: each is answered or refused in bounded time without
//! effect on other requests.

use serde_json::{Value, json};

use crate::rig::app::{TestApp, ask};
use crate::rig::local_models;

fn consts(many: usize) -> Value {
    (0..many).map(|at| json!({"const": format!("value {at}")})).collect()
}

fn named(many: usize, schema: impl Fn(usize) -> Value) -> Value {
    (0..many).map(|at| (format!("n{at}"), schema(at))).collect()
}

/// Name, schema, and whether it must be refused.
fn schemas() -> Vec<(&'static str, Value, bool)> {
    let next = |at: usize| json!({"properties": {"a": {"$ref": format!("#/$defs/n{}", at + 1)}}});
    let pair = |at: usize| {
        let part = |name: &str| json!({"allOf": [{"$ref": format!("#/$defs/n{}", at + 1)}, {"title": name, "minProperties": 0}]});
        json!({"anyOf": [part("a"), part("b")]})
    };
    let deep = (0..60).fold(
        json!({"type": "string"}),
        |inner, _| json!({"type": "object", "properties": {"a": inner}, "required": ["a"]}),
    );
    let text = |more: Value| {
        let mut schema = json!({"type": "string"});
        schema.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        schema
    };
    vec![
        ("products", json!({"allOf": [{"anyOf": consts(3000)}, {"anyOf": consts(3000)}]}), true),
        (
            "copies",
            json!({"properties": named(3000, |_| json!({"type": "string"})), "anyOf": consts(3000)}),
            true,
        ),
        ("a long chain", json!({"$ref": "#/$defs/n0", "$defs": named(30_000, next)}), true),
        ("doubling", json!({"$ref": "#/$defs/n0", "$defs": named(40, pair)}), true),
        ("deep", deep, false),
        (
            "many items",
            json!({"type": "array", "items": {"type": "boolean"}, "minItems": 1_000_000_000}),
            false,
        ),
        ("many members", json!({"type": "object", "minProperties": 1_000_000}), false),
        ("a long text", text(json!({"minLength": 1_000_000_000})), false),
        ("repeats", text(json!({"pattern": "^((((a{1,99}){1,99}){1,99}){1,99}b)+$"})), false),
        ("a counter", text(json!({"pattern": "^.{0,5000}a.{0,5000}b.{0,5000}c$"})), false),
        ("backtracks", text(json!({"pattern": "^(a|a?)+(.*a){12}$"})), false),
        (
            "alternatives",
            text(
                json!({"pattern": (0..20_000).map(|at| format!("{at}x")).collect::<Vec<_>>().join("|")}),
            ),
            false,
        ),
        (
            "many values",
            json!({"enum": (0..20_000).map(|at| format!("value {at}")).collect::<Vec<_>>()}),
            false,
        ),
        (
            "wide",
            json!({"type": "object", "properties": named(5000, |_| json!({"type": "integer"})), "required": ["n4999"]}),
            false,
        ),
        ("itself", json!({"$ref": "#"}), true),
        ("unicode in what it says", json!({"type": "integer", "minimum": "é".repeat(99)}), true),
    ]
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_hostile_schema_does_not_affect_other_requests() {
    let app = TestApp::start(&local_models::smol("slots = 4\n")).await;
    app.until_loaded("smol").await;
    let mut plain = ask("smol", "Who wrote Hamlet?");
    plain["temperature"] = json!(0);
    plain["max_tokens"] = json!(16);
    let alone = app.chat(&plain).await.content().to_owned();
    for (what, schema, refused) in schemas() {
        let mut request = ask("smol", "Hi");
        request["max_tokens"] = json!(8);
        request["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "it", "strict": true, "schema": schema}});
        let begun = std::time::Instant::now();
        let (hostile, beside) = futures::join!(app.chat(&request), app.chat(&plain));
        println!("{what}: {} after {:?}", hostile.status, begun.elapsed());
        assert_eq!(beside.content(), alone, "{what}: {}", beside.text);
        if refused {
            assert_eq!(hostile.status, 400, "{what}: {}", hostile.text);
            assert_eq!(
                hostile.json["error"]["param"], "response_format",
                "{what}: {}",
                hostile.text
            );
        } else {
            assert!([200, 400].contains(&hostile.status), "{what}: {}", hostile.text);
        }
        assert!(hostile.text.len() < 4096, "{what}: an error quotes no schema: {}", hostile.text);
    }
    let metrics = app.get("/metrics").await.text;
    let restarts = metrics.lines().find(|line| line.starts_with("wattgate_engine_restarts_total"));
    assert!(restarts.is_none_or(|line| line.ends_with(" 0")), "the engine lived: {restarts:?}");
}
