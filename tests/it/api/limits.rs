//! Most elements of a request: more are refused by the name of the field, before any model is
//! asked.

use serde_json::{Map, Value, json};

use crate::rig::app::{TestApp, ask};
use crate::rig::local_models::fake_smol;

fn many(count: usize, one: impl Fn(usize) -> Value) -> Value {
    (0..count).map(one).collect()
}

fn tool(at: usize) -> Value {
    json!({"type": "function", "function": {"name": format!("f{at}")}})
}

#[tokio::test]
async fn elements_beyond_the_limits_are_refused_by_name_for_every_model() {
    let app = TestApp::start_fake(&fake_smol("")).await;
    app.until_loaded("smol").await;
    let biases = |count: usize| -> Map<String, Value> {
        (0..count).map(|at| (at.to_string(), json!(1))).collect()
    };
    for (field, limit, of) in [
        ("tools", "128", json!({"tools": many(129, tool)})),
        (
            "functions",
            "128",
            json!({"functions": many(129, |at| json!({"name": format!("f{at}")}))}),
        ),
        (
            "messages",
            "10000",
            json!({"messages": many(10_001, |_| json!({"role": "user", "content": "a"}))}),
        ),
        (
            "messages",
            "20000",
            json!({"messages": [{"role": "user", "content": many(20_001, |_| json!({"type": "text", "text": "a"}))}]}),
        ),
        ("stop", "16", json!({"stop": many(17, |at| json!(at.to_string()))})),
        ("logit_bias", "65536", json!({"logit_bias": biases(65_537)})),
        ("guided_choice", "1000", json!({"guided_choice": many(1001, |at| json!(at.to_string()))})),
    ] {
        let mut request = ask("smol", "hi");
        request.as_object_mut().unwrap().extend(of.as_object().unwrap().clone());
        let reply = app.chat(&request).await;
        assert_eq!(
            reply.error(),
            (400, "invalid_request_error", "invalid_value"),
            "{field}: {}",
            reply.text
        );
        assert_eq!(reply.json["error"]["param"], field, "{}", reply.text);
        let message = reply.json["error"]["message"].as_str().unwrap();
        assert!(message.contains(limit), "{message}");
    }
    let mut request = ask("smol", "hi");
    request["tools"] = many(128, tool);
    request["logit_bias"] = biases(1024).into();
    assert_eq!(app.chat(&request).await.status, 200);
}

#[tokio::test]
async fn the_limits_are_configured_in_one_place() {
    let config = format!("{}\n[server.limits]\ntools = 1\nstops = 1\n", fake_smol(""));
    let app = TestApp::start_fake(&config).await;
    app.until_loaded("smol").await;
    let mut request = ask("smol", "hi");
    request["tools"] = many(2, tool);
    assert_eq!(app.chat(&request).await.json["error"]["param"], "tools");
    let raw = json!({"model": "smol", "prompt": "hi", "stop": ["a", "b"]});
    let reply = app.post("/v1/completions", &raw).await;
    assert_eq!(reply.json["error"]["param"], "stop", "{}", reply.text);
}
