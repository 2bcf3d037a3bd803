//! The fake engine: scripted answers, refusals, failed loads and deaths, over the real wire
//! protocol.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::rig::app::{TestApp, ask, ask_streaming, eventually};
use crate::rig::local_models::{engine_state, fake_model};

async fn start(script: &str) -> (TestApp, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    // On demand: the first request waits for the load.
    let config = fake_model(dir.path(), "fake", script, "slots = 2\nload = \"on_demand\"");
    (TestApp::start(&config).await, dir)
}

#[tokio::test]
async fn a_scripted_answer_is_served_streamed_and_metered() {
    let script = "[[answers]]\nwhen = \"weather\"\ntext = \"<think>hm, </think>It rains.\"";
    let (app, _dir) = start(script).await;
    let reply = app.chat(&ask("fake", "How is the weather?")).await;
    assert_eq!((reply.status, reply.content()), (200, "It rains."), "{}", reply.text);
    assert_eq!(reply.json["choices"][0]["message"]["reasoning_content"], "hm,");
    assert_eq!(reply.json["usage"]["prompt_tokens"], 5);
    let stream = app.stream(&ask_streaming("fake", "Anything else?")).await;
    assert_eq!(stream.content(), "This is a scripted answer.");
    let records = app.until_logged(2).await;
    assert!(records.iter().all(|record| record.status == 200), "{records:?}");
}

#[tokio::test]
async fn a_scripted_call_is_a_tool_call_and_a_refusal_is_an_error() {
    let script = "[[answers]]\nwhen = \"refuse\"\nrefuse = \"no such turn\"\n[default]\n\
                  text = '<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>'";
    let (app, _dir) = start(script).await;
    let mut request = ask("fake", "Call it.");
    request["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
    let reply = app.chat(&request).await;
    let call = &reply.json["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(call, &json!({"name": "f", "arguments": "{\"a\": 1}"}), "{}", reply.text);
    let reply = app.chat(&ask("fake", "refuse this")).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text.contains("no such turn"), "{}", reply.text);
}

#[tokio::test]
async fn a_scripted_death_fails_the_request_and_restarts_the_engine() {
    let (app, dir) = start("[default]\ndie_after = 1").await;
    let reply = app.chat(&ask("fake", "hi")).await;
    assert!(reply.status >= 500, "{}", reply.text);
    std::fs::write(dir.path().join("fake.fake.toml"), "load_ms = 20").unwrap();
    let reply = eventually(|| async {
        let reply = app.chat(&ask("fake", "hi")).await;
        (reply.status == 200).then_some(reply)
    })
    .await;
    assert_eq!(reply.content(), "This is a scripted answer.");
    assert!(engine_state(&app, "fake").borrow().restarts >= 1);
}

#[tokio::test]
async fn a_scripted_load_error_is_the_reason_of_the_refusal() {
    let (app, _dir) = start("load_error = \"out of magic\"").await;
    let reply: Value = eventually(|| async {
        let reply = app.chat(&ask("fake", "hi")).await;
        reply.text.contains("out of magic").then_some(reply.json)
    })
    .await;
    assert_eq!(reply["error"]["code"], "unavailable", "{reply}");
}
