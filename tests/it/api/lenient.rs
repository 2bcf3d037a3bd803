//! Requests in which servers differ: a named upstream gets them as they are, and a local model
//! honours them or is excluded by the name of the field.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::rig::app::{Reply, TestApp, ask, cloud_model};
use crate::rig::local_models::fake_smol;
use crate::rig::mock_upstream::MockUpstream;

/// A fake local model that `auto` prefers, and an upstream.
async fn both() -> (TestApp, MockUpstream) {
    let upstream = MockUpstream::start().await;
    let policy = "[policies.default]\nobjective = \"joules\"\nfloor = 0.0\n";
    let config = format!("{policy}{}{}", fake_smol(""), cloud_model("cloud", 1.0, &upstream));
    let app = TestApp::start_fake(&config).await;
    app.until_loaded("smol").await;
    (app, upstream)
}

fn with(mut request: Value, more: &Value) -> Value {
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

#[tokio::test]
async fn what_a_local_model_lacks_goes_to_an_upstream_and_is_named() {
    let (app, upstream) = both().await;
    let plain = app.chat(&ask("auto", "hi")).await;
    assert_eq!(plain.receipt()["model"], "smol", "{}", plain.text);
    let f = json!({"type": "function", "function": {"name": "f"}});
    let long = json!({"type": "function", "function": {"name": "f/g h"}});
    let many: Vec<String> = (0..17).map(|stop| stop.to_string()).collect();
    let turn = |turn: Value| json!({"messages": [{"role": "user", "content": "hi"}, turn]});
    let cases = [
        (json!({"web_search_options": {}}), "web_search_options"),
        (json!({"plugins": [{"id": "web"}]}), "plugins"),
        (json!({"grammar": "root ::= \"a\""}), "grammar"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"tools": [f, long]}), "tools[1].function.name"),
        (json!({"tools": [f], "tool_choice": {"type": "custom"}}), "tool_choice"),
        (json!({"temperature": 2.5}), "temperature"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"stop": many}), "stop"),
        (turn(json!({"role": "control", "content": "x"})), "messages[1].role"),
        (turn(json!({"role": "model", "content": "x"})), "messages[1].role"),
        (turn(json!({"role": "tool", "content": "7"})), "messages[1].tool_call_id"),
    ];
    for (more, param) in cases {
        let sent = upstream.requests().len();
        for model in ["cloud", "auto"] {
            let reply = app.chat(&with(ask(model, "hi"), &more)).await;
            assert_eq!(reply.receipt()["model"], "cloud", "{model} {more}: {}", reply.text);
            let received = upstream.requests().pop().unwrap().body;
            for (field, value) in more.as_object().unwrap() {
                assert_eq!(&received[field], value, "{more}");
            }
        }
        let reply = app.chat(&with(ask("smol", "hi"), &more)).await;
        assert_eq!(reply.status, 400, "{more}: {}", reply.text);
        assert_eq!(reply.json["error"]["param"], param, "{}", reply.text);
        assert_eq!(reply.json["error"]["type"], "invalid_request_error");
        let excluded = &reply.receipt()["candidates"][0]["excluded"];
        let root = param.split(['.', '[']).next().unwrap();
        let candidates = reply.receipt()["candidates"].as_array().unwrap();
        let named = candidates.iter().any(|one| one["excluded"]["upstream_only"] == root);
        assert!(named, "{excluded}: {}", reply.text);
        assert_eq!(upstream.requests().len(), sent + 2);
    }
}

#[tokio::test]
async fn other_ways_of_writing_the_same_are_honoured_by_both() {
    let (app, upstream) = both().await;
    let call = |id: Value, arguments: Value| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": arguments}});
    let past = |call: Value| {
        json!({"messages": [{"role": "user", "content": "hi"},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "a", "content": "7"}]})
    };
    let turn = |role: &str, content: Value| {
        json!({"messages": [{"role": "user", "content": "hi"}, {"role": role, "content": content},
            {"role": "user", "content": "go on"}]})
    };
    let dotted =
        json!({"type": "function", "function": {"name": "a.b".repeat(40), "parameters": []}});
    let functions = json!([{"name": "f", "parameters": {"type": "object", "properties": {}}}]);
    let cases = [
        json!({"max_tokens": 100.0, "n": 1.0, "seed": 42.0, "top_k": 40.0}),
        json!({"max_tokens": 1e2, "logprobs": true, "top_logprobs": 5.0}),
        json!({"max_completion_tokens": -1}),
        json!({"max_tokens": -1}),
        json!({"seed": 18_446_744_073_709_551_615_u64}),
        json!({"repeat_penalty": 1.1, "repetition_penalty": 1.2}),
        json!({"repeat_penalty": null, "repetition_penalty": 1.2}),
        json!({"logit_bias": []}),
        json!({"stop": ["a1", "b1", "c1", "d1", "e1"]}),
        json!({"top_logprobs": 0}),
        json!({"tools": [dotted], "tool_choice": "none"}),
        json!({"prediction": {"type": "content", "content": "x"}, "store": false}),
        json!({"functions": functions, "function_call": "none"}),
        past(call(json!(null), json!("{}"))),
        past(call(json!("a"), json!({"city": "Oslo"}))),
        turn("user", json!(["hi"])),
        turn("assistant", json!([{"type": "refusal", "refusal": "no"}])),
        turn("assistant", json!([{"type": "thinking", "thinking": "hm"}])),
        turn("user", json!([{"type": "input_text", "text": "hi"}])),
        json!({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant",
            "content": "a", "reasoning_content": [{"type": "text", "text": "hm"}]},
            {"role": "user", "content": "go on"}]}),
        json!({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant",
            "content": null, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "7"}]}),
    ];
    for more in cases {
        let reply = app.chat(&with(ask("smol", "hi"), &more)).await;
        assert_eq!(reply.status, 200, "{more}: {}", reply.text);
        let reply = app.chat(&with(ask("cloud", "hi"), &more)).await;
        assert_eq!(reply.status, 200, "{more}: {}", reply.text);
        let received = upstream.requests().pop().unwrap().body;
        for (field, value) in more.as_object().unwrap() {
            assert_eq!(&received[field], value, "{more}");
        }
    }
    // Sound that only its upstream has is media.
    let spoken = json!({"messages": [{"role": "assistant", "audio": {"id": "x"}}]});
    let reply = app.chat(&with(ask("auto", "hi"), &spoken)).await;
    assert_eq!(reply.receipt()["model"], "cloud", "{}", reply.text);
}

async fn raw(app: &TestApp, body: impl Into<reqwest::Body>, encoding: Option<&str>) -> Reply {
    let mut request = app.request("/v1/chat/completions").body(body);
    if let Some(encoding) = encoding {
        request = request.header("content-encoding", encoding);
    }
    Reply::of(request.send().await.unwrap()).await
}

#[tokio::test]
async fn of_a_key_that_stands_twice_the_last_one_counts_here_and_upstream() {
    let (app, upstream) = both().await;
    let turn = r#"{"role":"system","role":"user","content":"a","content":"hi"}"#;
    let body = format!(
        r#"{{"model":"smol","n":"x","model":"cloud","n":1,"messages":[],"messages":[{turn}]}}"#
    );
    let reply = raw(&app, body, None).await;
    assert_eq!((reply.status, &reply.receipt()["model"]), (200, &json!("cloud")), "{}", reply.text);
    let received = upstream.requests().pop().unwrap();
    assert_eq!(received.raw.matches("messages").count(), 1, "{}", received.raw);
    assert_eq!(received.body["messages"], json!([{"role": "user", "content": "hi"}]));
}

#[tokio::test]
async fn metadata_may_be_of_any_depth() {
    let (app, upstream) = both().await;
    let deep = "[".repeat(200) + &"]".repeat(200);
    let body = format!(
        r#"{{"model":"cloud","messages":[{{"role":"user","content":"hi"}}],"metadata":{{"a":{deep}}}}}"#
    );
    let reply = raw(&app, body, None).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert!(upstream.requests()[0].raw.contains(&deep));
}

#[tokio::test]
async fn compressed_bodies_are_read_within_the_limit_and_other_encodings_are_named() {
    let (app, upstream) = both().await;
    let gzip = |body: &[u8]| {
        let mut encoder = GzEncoder::new(vec![], Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    };
    let body = ask("cloud", "hi").to_string();
    let reply = raw(&app, gzip(body.as_bytes()), Some("gzip")).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(upstream.requests()[0].body["messages"][0]["content"], "hi");
    let bomb = raw(&app, gzip(&vec![b' '; 33 << 20]), Some("gzip")).await;
    assert_eq!(bomb.error(), (413, "invalid_request_error", "body_too_large"));
    let unknown = raw(&app, body.clone(), Some("br")).await;
    assert_eq!(unknown.error(), (415, "invalid_request_error", "unsupported_encoding"));
    assert!(unknown.text.contains("br"), "{}", unknown.text);
    let false_gzip = raw(&app, body, Some("gzip")).await;
    assert_eq!(false_gzip.error(), (400, "invalid_request_error", "invalid_encoding"));
}

#[tokio::test]
async fn a_prompt_that_is_too_long_is_told_in_the_words_that_clients_know() {
    let (app, _upstream) = both().await;
    for words in [2_000, 20_000] {
        let reply = app.chat(&ask("smol", &"word ".repeat(words))).await;
        assert_eq!(reply.error(), (400, "invalid_request_error", "context_length_exceeded"));
        let error = &reply.json["error"];
        let message = error["message"].as_str().unwrap();
        for known in ["This model's maximum context length is 1024", "prompt is too long"] {
            assert!(message.contains(known), "{message}");
        }
        assert_eq!((&error["param"], &error["n_ctx"]), (&json!("messages"), &json!(1024)));
        assert!(error["n_prompt_tokens"].as_u64().unwrap() > 1024, "{error}");
    }
}
