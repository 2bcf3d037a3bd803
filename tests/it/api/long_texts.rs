//! Texts that are long wherever they are: refused or answered soon, while other requests go on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::rig::app::{TestApp, ask};
use crate::rig::local_models::{self, short};

/// Texts of a megabyte that tokenisers dislike.
fn texts() -> [(&'static str, String); 4] {
    [
        ("blanks", " ".repeat(1 << 20)),
        ("one word", "x".repeat(1 << 20)),
        ("signs", "<".repeat(1 << 20)),
        ("line ends", "\n".repeat(1 << 20)),
    ]
}

/// A conversation with the text in each field that a template may write out.
fn conversations(text: &str) -> Vec<(&'static str, Value)> {
    let user = || json!({"role": "user", "content": "hi"});
    let call = |id: &str, name: &str, arguments: &str| {
        json!({"role": "assistant", "tool_calls": [
            {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}]})
    };
    let quoted = json!({"a": text}).to_string();
    vec![
        ("content", json!({"messages": [{"role": "user", "content": text}]})),
        ("arguments", json!({"messages": [user(), call("a", "f", text)]})),
        ("a string in the arguments", json!({"messages": [user(), call("a", "f", &quoted)]})),
        ("a call's id", json!({"messages": [user(), call(text, "f", "{}")]})),
        ("a call's name", json!({"messages": [user(), call("a", text, "{}")]})),
        (
            "reasoning",
            json!({"messages": [user(), {"role": "assistant", "content": "a", "reasoning_content": text}, user()]}),
        ),
        (
            "a speaker's name",
            json!({"messages": [{"role": "user", "content": "hi", "name": text}]}),
        ),
        ("a variable", json!({"messages": [user()], "chat_template_kwargs": {"a": text}})),
        (
            "a tool's description",
            json!({"messages": [user()], "tools": [{"type": "function", "function": {"name": "f", "description": text}}]}),
        ),
    ]
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_long_text_in_any_field_delays_no_other_request() {
    // Without a limit by its estimate, so that all of it reaches the engine.
    let app =
        TestApp::start(&local_models::smol("slots = 2\noverflow = \"drop_oldest_turns\"\n")).await;
    app.until_loaded("smol").await;
    for (kind, text) in texts() {
        for (field, more) in conversations(&text) {
            let mut request = ask("smol", "hi");
            request["max_tokens"] = json!(4);
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let begun = Instant::now();
            let beside = async {
                let reply = app.chat(&short("smol", "Who wrote Hamlet?")).await;
                (reply, begun.elapsed())
            };
            let long = async {
                let reply = app.chat(&request).await;
                (reply, begun.elapsed())
            };
            let ((long, took), (beside, waited)) = futures::join!(long, beside);
            println!("{kind} in {field}: {} after {took:?}, beside {waited:?}", long.status);
            assert!([200, 400].contains(&long.status), "{kind} in {field}: {}", long.text);
            assert_eq!(beside.status, 200, "{kind} in {field}: {}", beside.text);
            assert!(waited < Duration::from_secs(6), "{kind} in {field}: waited {waited:?}");
            assert!(took < Duration::from_secs(12), "{kind} in {field}: took {took:?}");
        }
    }
}
