//! Schemas that are expensive on purpose: each is answered or refused in bounded time without
//! effect on other requests.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::rig::app::{Reply, TestApp, ask};
use crate::rig::local_models;

fn consts(many: usize) -> Value {
    (0..many).map(|at| json!({"const": format!("value {at}")})).collect()
}

fn named(many: usize, schema: impl Fn(usize) -> Value) -> Value {
    (0..many).map(|at| (format!("n{at}"), schema(at))).collect()
}

/// Patterns of which each text must match all.
fn together(many: u8, pattern: impl Fn(&str) -> String) -> Value {
    let word = |at: u8| char::from(b'a' + at).to_string().repeat(3);
    let parts = (0..many).map(|at| json!({"type": "string", "pattern": pattern(&word(at))}));
    json!({"allOf": parts.collect::<Vec<_>>()})
}

fn named_by_pattern(many: usize) -> Value {
    (0..many).map(|at| (format!("^k{at}_(a|b)*$"), json!({"type": "string"}))).collect()
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
        ("patterns together", together(26, |word| format!(".*{word}.*")), true),
        ("patterns that begin alike", together(26, |word| format!("^(y|x.*{word}.*)$")), false),
        (
            "patterns and lengths",
            json!({"type": "string", "pattern": "^(.{0,30}x)?(.{0,30}y)?(.{0,30}z)?$", "minLength": 50, "maxLength": 90}),
            false,
        ),
        (
            "far apart",
            json!({"allOf": [{"type": "string", "pattern": "^.*a.{40}$"}, {"type": "string", "pattern": "^.*b.{41}$"}]}),
            false,
        ),
        (
            "names by many patterns",
            json!({"type": "object", "patternProperties": named_by_pattern(300), "additionalProperties": {"type": "integer"}}),
            false,
        ),
        (
            "multiples",
            json!({"allOf": (2..40).map(|of| json!({"type": "integer", "multipleOf": of})).collect::<Vec<_>>()}),
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
        let begun = Instant::now();
        // A schema that the engine has not seen.
        let mut usual = ask("smol", "Hi");
        usual["max_tokens"] = json!(8);
        usual["guided_json"] = json!({"type": "object", "properties": {what: {"type": "boolean"}}});
        let timed = async {
            let reply = app.chat(&usual).await;
            (reply, begun.elapsed())
        };
        let (hostile, beside, (constrained, waited)) =
            futures::join!(app.chat(&request), app.chat(&plain), timed);
        println!("{what}: {} after {:?}, usual {waited:?}", hostile.status, begun.elapsed());
        assert_eq!(beside.content(), alone, "{what}: {}", beside.text);
        assert_eq!(constrained.status, 200, "{what}: {}", constrained.text);
        assert!(waited < Duration::from_secs(8), "{what}: a usual schema waited {waited:?}");
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

/// CPU seconds of a process and of those that it started and waited for.
fn cpu_s(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..15].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    ticks as f64 / 100.0
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_hard_schema_ends_with_its_request_and_is_not_compiled_twice() {
    let app = TestApp::start(&local_models::smol("slots = 2\n")).await;
    app.until_loaded("smol").await;
    let pid = local_models::engine_pid(&app, "smol").unwrap().as_raw_nonzero().get();
    let mut request = ask("smol", "Hi");
    request["max_tokens"] = json!(8);
    request["guided_json"] = together(26, |word| format!(".*{word}.*"));
    let begun = Instant::now();
    let hard = app.request("/v1/chat/completions").header("x-wattgate-deadline-ms", "700");
    let reply = Reply::of(hard.json(&request).send().await.unwrap()).await;
    assert!([400, 504].contains(&reply.status), "{}", reply.text);
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    // Nothing goes on after it: no CPU is used, and no helper is left behind that computes.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = cpu_s(pid);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(cpu_s(pid) - before < 0.5, "the engine and its helpers rest");
    // Refused at last, and at once when it comes again.
    let refused = app.chat(&request).await;
    assert_eq!(refused.error(), (400, "invalid_request_error", ""), "{}", refused.text);
    let before = cpu_s(pid);
    assert_eq!(app.chat(&request).await.status, 400);
    assert!(cpu_s(pid) - before < 0.5, "it is not compiled again");
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_client_that_leaves_ends_the_compiling_of_its_schema() {
    let app = TestApp::start(&local_models::smol("slots = 2\n")).await;
    app.until_loaded("smol").await;
    let mut request = ask("smol", "Hi");
    request["guided_json"] = together(24, |word| format!(".*{word}.*"));
    let pid = local_models::engine_pid(&app, "smol").unwrap().as_raw_nonzero().get();
    let before = cpu_s(pid);
    let begun = async { app.until_in_flight("smol", 1).await };
    app.leave("/v1/chat/completions", &request, begun).await;
    app.until_in_flight("smol", 0).await;
    // To its end it would take 2.2 s.
    assert!(cpu_s(pid) - before < 1.7, "{} s of CPU time", cpu_s(pid) - before);
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_hard_schema_of_a_tool_is_left_out_and_of_a_strict_one_refused() {
    let app = TestApp::start(&local_models::smol("slots = 2\n")).await;
    app.until_loaded("smol").await;
    let schema =
        json!({"type": "object", "properties": {"a": together(26, |word| format!(".*{word}.*"))}});
    for (strict, status) in [(false, 200), (true, 400)] {
        let mut request = ask("smol", "Hi");
        request["max_tokens"] = json!(8);
        request["tools"] = json!([{"type": "function", "function": {"name": "f", "strict": strict, "parameters": schema}}]);
        let reply = app.chat(&request).await;
        assert_eq!(reply.status, status, "{}", reply.text);
    }
}
