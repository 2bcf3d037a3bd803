//! `/v1/messages` on local models and on upstreams that know chat only: answers, events, tools,
//! failures.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::rig::app::{Reply, TestApp, client, cloud_model};
use crate::rig::local_models::fake_model;
use crate::rig::mock_upstream::{MockUpstream, Mode};
use crate::rig::named_events::NamedEvents;

const PATH: &str = "/v1/messages";

async fn cloud() -> (TestApp, MockUpstream) {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&cloud_model("cloud", 3.0, &upstream)).await;
    (app, upstream)
}

async fn local(script: &str) -> (TestApp, TempDir) {
    let dir = TempDir::new().unwrap();
    let app = TestApp::start_fake(&fake_model(dir.path(), "smol", script, "")).await;
    app.until_loaded("smol").await;
    (app, dir)
}

fn ask(model: &str, prompt: &str) -> Value {
    json!({"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": prompt}]})
}

fn streaming(mut body: Value) -> Value {
    body["stream"] = json!(true);
    body
}

#[tokio::test]
async fn an_upstream_that_knows_chat_answers() {
    let (app, upstream) = cloud().await;
    let mut body = ask("auto", "hello you");
    body["system"] = json!([
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=1a2b;"},
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]);
    body["metadata"] = json!({"user_id": "ada"});
    let reply = app.post("/v1/messages?beta=true", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let text = MockUpstream::reply_to("hello you");
    assert_eq!(reply.json["content"], json!([{"type": "text", "text": text}]));
    for (field, value) in [
        ("type", json!("message")),
        ("role", json!("assistant")),
        ("model", json!("cloud")),
        ("stop_reason", json!("end_turn")),
        ("stop_sequence", Value::Null),
    ] {
        assert_eq!(reply.json[field], value, "{field}");
    }
    assert_eq!(reply.json["usage"]["input_tokens"], 2);
    assert_eq!(reply.receipt()["model"], "cloud");
    assert_eq!(reply.header("request-id"), reply.header("x-wattgate-request-id"));
    let sent = &upstream.requests()[0];
    assert_eq!(sent.path, "/v1/chat/completions");
    let turns = json!([{"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello you"}]);
    assert_eq!(sent.body["messages"], turns);
    assert!(!sent.raw.contains("ada") && !sent.raw.contains("cache_control"), "{}", sent.raw);
}

#[tokio::test]
async fn a_stream_tells_every_step() {
    let (app, _upstream) = cloud().await;
    let stream = NamedEvents::of(&app, PATH, &streaming(ask("auto", "hi"))).await;
    assert_eq!(
        stream.names(),
        [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    let deltas = stream.all("content_block_delta");
    let text: String = deltas.map(|event| event["delta"]["text"].as_str().unwrap()).collect();
    assert_eq!(text, MockUpstream::reply_to("hi"));
    let delta = stream.all("message_delta").next().unwrap();
    assert_eq!(delta["delta"]["stop_reason"], "end_turn");
    assert!(delta["usage"]["output_tokens"].as_u64() > Some(1), "{delta}");
    assert_eq!(stream.last()["wattgate"]["model"], "cloud");
    assert!(!stream.text.contains("[DONE]"));
}

const SCRIPT: &str = "step_ms = 1\n[default]\ntext = \"<think>hm so</think>Let me see. <tool_call>{\\\"name\\\": \\\"get_weather\\\", \\\"arguments\\\": {\\\"city\\\": \\\"Paris\\\"}}</tool_call>\"\n[[answers]]\nwhen = \"17 degrees\"\ntext = \"It is warm.\"\n";

#[tokio::test]
async fn a_local_model_thinks_and_calls() {
    let (app, _dir) = local(SCRIPT).await;
    let mut body = ask("smol", "Weather in Paris?");
    body["tools"] = json!([{"name": "get_weather", "input_schema": {"type": "object",
        "properties": {"city": {"type": "string"}}, "required": ["city"]}}]);
    let kinds = |content: &Value| -> Vec<String> {
        let blocks = content.as_array().unwrap().iter();
        blocks.map(|block| block["type"].as_str().unwrap().to_owned()).collect()
    };
    // Thinking that was not asked for would be taken for text.
    let plain = app.post(PATH, &body).await;
    assert_eq!(kinds(&plain.json["content"]), ["text", "tool_use"], "{}", plain.text);
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024});
    let whole = app.post(PATH, &body).await;
    let content = &whole.json["content"];
    assert_eq!(kinds(content), ["thinking", "text", "tool_use"]);
    assert_eq!(content[0]["thinking"], "hm so");
    assert_eq!(content[2]["input"], json!({"city": "Paris"}));
    assert_eq!(whole.json["stop_reason"], "tool_use");

    let stream = NamedEvents::of(&app, PATH, &streaming(body.clone())).await;
    let mut deltas: Vec<_> = stream
        .all("content_block_delta")
        .map(|event| (event["index"].as_u64().unwrap(), event["delta"]["type"].as_str().unwrap()))
        .collect();
    deltas.dedup();
    assert_eq!(
        deltas,
        [(0, "thinking_delta"), (0, "signature_delta"), (1, "text_delta"), (2, "input_json_delta"),]
    );
    let json: String = stream
        .all("content_block_delta")
        .filter_map(|event| event["delta"]["partial_json"].as_str())
        .collect();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), json!({"city": "Paris"}));

    let result = json!({"type": "tool_result", "tool_use_id": content[2]["id"],
        "content": [{"type": "text", "text": "17 degrees"}]});
    let turns = body["messages"].as_array_mut().unwrap();
    turns.push(json!({"role": "assistant", "content": content}));
    turns.push(json!({"role": "user", "content": [result]}));
    let answered = app.post(PATH, &body).await;
    let answer = json!([{"type": "text", "text": "It is warm."}]);
    assert_eq!(answered.json["content"], answer, "{}", answered.text);
    assert_eq!(answered.json["stop_reason"], "end_turn");
}

#[tokio::test]
async fn an_answer_that_was_cut_says_so() {
    let (app, _dir) = local("[default]\ntext = \"one two three four five\"\n").await;
    let mut body = ask("smol", "count");
    body["max_tokens"] = json!(2);
    assert_eq!(app.post(PATH, &body).await.json["stop_reason"], "max_tokens");
}

#[tokio::test]
async fn failures_have_anthropics_shape() {
    let (app, upstream) = cloud().await;
    let refused = async |body: &Value| {
        let reply = app.post(PATH, body).await;
        let error = &reply.json["error"];
        assert_eq!(reply.json["type"], "error", "{}", reply.text);
        assert_eq!(reply.json["request_id"], reply.header("request-id"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (reply.status, text(&error["type"]), text(&error["message"]))
    };
    let (status, kind, _) = refused(&ask("claude-x", "hi")).await;
    assert_eq!((status, &*kind), (404, "not_found_error"));
    let (status, kind, message) = refused(&json!({"model": "cloud", "input": "hi"})).await;
    assert_eq!((status, &*kind), (400, "invalid_request_error"));
    assert!(message.contains("`messages`"), "{message}");
    let orphan = json!({"model": "cloud", "messages": [{"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "t", "content": "x"}]}]});
    let (status, _, message) = refused(&orphan).await;
    assert!(status == 400 && message.contains("messages[0].content[0]"), "{message}");
    let long = json!({"model": "cloud", "messages": [
        {"role": "user", "content": "x"}], "max_tokens": 1, "stop_sequences": vec!["x"; 200]});
    let (_, _, message) = refused(&long).await;
    assert!(message.starts_with("`stop_sequences` takes at most"), "{message}");
    upstream.respond_with(Mode::CutMidAnswer);
    let stream = NamedEvents::of(&app, PATH, &streaming(ask("cloud", "one two three"))).await;
    assert_eq!(stream.names().last(), Some(&"error"));
    assert_eq!(stream.last()["error"]["type"], "overloaded_error");
    assert_eq!(stream.last()["wattgate"]["attempts"][0]["outcome"], "failed");
    // Last: the upstream is left alone for so long.
    upstream.respond_with(Mode::RateLimited("7"));
    let (status, kind, _) = refused(&streaming(ask("cloud", "hi"))).await;
    assert_eq!((status, &*kind), (429, "rate_limit_error"));
}

#[tokio::test]
async fn a_prompt_that_is_too_long_is_refused_in_the_words_of_coding_agents() {
    let (app, _dir) = local("").await;
    let reply = app.post(PATH, &ask("smol", &"word ".repeat(60_000))).await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    let message = reply.json["error"]["message"].as_str().unwrap();
    let numbers: Vec<u32> =
        message.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    assert!(message.starts_with("prompt is too long: ") && numbers.len() == 2, "{message}");
}

#[tokio::test]
async fn what_else_these_clients_ask_is_answered() {
    let (app, _upstream) = cloud().await;
    let request = |method: &str, path: &str| {
        let method = method.parse().unwrap();
        client().request(method, app.url(path)).header("anthropic-version", "2023-06-01")
    };
    assert_eq!(request("HEAD", "/").send().await.unwrap().status(), 200);
    let models =
        Reply::of(request("GET", "/v1/models?limit=1000").send().await.unwrap()).await.json;
    assert_eq!(models["has_more"], false);
    let ids: Vec<_> = models["data"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!((&models["first_id"], &models["last_id"]), (ids[0], ids[ids.len() - 1]));
    assert_eq!(models["data"][0]["type"], "model");
    let one = Reply::of(request("GET", "/v1/models/cloud").send().await.unwrap()).await.json;
    assert_eq!((&one["id"], &one["type"]), (&json!("cloud"), &json!("model")));
    let count = app.post("/v1/messages/count_tokens", &ask("auto", "hello you there")).await;
    assert!(count.json["input_tokens"].as_u64() > Some(2), "{}", count.text);
    let wrong = app.post("/v1/messages/count_tokens", &json!({"model": "auto"})).await;
    assert_eq!((wrong.status, &wrong.json["type"]), (400, &json!("error")));
}

#[tokio::test]
async fn the_key_and_the_agent_tell_conversations_apart() {
    let (app, upstream) = cloud().await;
    let session = async |headers: &[(&str, &str)]| {
        let mut request = client().post(app.url(PATH)).json(&ask("auto", "hi"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let reply = Reply::of(request.send().await.unwrap()).await;
        reply.header("x-wattgate-session").to_owned()
    };
    let (id, agent, key) = ("x-claude-code-session-id", "x-claude-code-agent-id", "x-api-key");
    let main = session(&[(id, "s"), (key, "k")]).await;
    assert_eq!(session(&[(id, "s"), (key, "k")]).await, main);
    assert_ne!(session(&[(id, "s"), (agent, "a"), (key, "k")]).await, main);
    assert_ne!(session(&[(id, "s"), (key, "other")]).await, main);
    assert!(
        upstream.requests().iter().all(|sent| !format!("{:?}", sent.headers).contains("x-api-key"))
    );
}
