//! `POST /v1/responses` on local models and on upstreams that know chat only: answers, events,
//! tools, failures.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::rig::app::{TestApp, cloud_model};
use crate::rig::local_models::fake_model;
use crate::rig::mock_upstream::{MockUpstream, Mode};
use crate::rig::named_events::NamedEvents;

const PATH: &str = "/v1/responses";

async fn cloud() -> (TestApp, MockUpstream) {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&cloud_model("cloud", 3.0, &upstream)).await;
    (app, upstream)
}

/// A local model that answers from a script.
async fn local(script: &str) -> (TestApp, TempDir) {
    let dir = TempDir::new().unwrap();
    let app = TestApp::start_fake(&fake_model(dir.path(), "smol", script, "")).await;
    app.until_loaded("smol").await;
    (app, dir)
}

fn ask(model: &str, input: &str) -> Value {
    json!({"model": model, "input": input})
}

fn streaming(mut body: Value) -> Value {
    body["stream"] = json!(true);
    body
}

fn weather() -> Value {
    json!({"type": "function", "name": "get_weather", "parameters": {"type": "object",
        "properties": {"city": {"type": "string"}}, "required": ["city"]}})
}

/// Every event has its number, and its item the place and the id that it was added with.
fn check_numbers(stream: &NamedEvents) {
    let mut ids = Vec::new();
    for (place, (name, event)) in stream.events.iter().enumerate() {
        assert_eq!(event["sequence_number"], place, "{name}");
        if let Some(index) = event["output_index"].as_u64() {
            let id = event.get("item_id").unwrap_or(&event["item"]["id"]).clone();
            if name == "response.output_item.added" {
                assert_eq!(index, ids.len() as u64);
                ids.push(id);
            } else {
                assert_eq!(id, ids[usize::try_from(index).unwrap()], "{name}");
            }
        }
    }
    assert!(!stream.text.contains("[DONE]"), "{}", stream.text);
}

#[tokio::test]
async fn an_upstream_that_knows_chat_answers() {
    let (app, upstream) = cloud().await;
    let mut body = ask("auto", "What is 2+2?");
    body["instructions"] = json!("Be brief.");
    body["max_output_tokens"] = json!(50);
    body["metadata"] = json!({"team": "a"});
    body["text"] = json!({"format": {"type": "json_schema", "name": "sum", "strict": true,
        "schema": {"type": "object", "properties": {"z": {}, "a": {}}}}});
    let reply = app.post(PATH, &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let text = MockUpstream::reply_to("What is 2+2?");
    let content = json!([{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]);
    assert_eq!(reply.json["output"][0]["content"], content);
    for (field, value) in [
        ("object", json!("response")),
        ("status", json!("completed")),
        ("model", json!("cloud")),
        ("instructions", json!("Be brief.")),
        ("metadata", json!({"team": "a"})),
        ("max_output_tokens", json!(50)),
        ("tools", json!([])),
        ("error", Value::Null),
        ("store", json!(true)),
    ] {
        assert_eq!(reply.json[field], value, "{field}");
    }
    assert_eq!(reply.json["usage"]["input_tokens"], 3);
    assert_eq!(reply.receipt()["model"], "cloud");
    let id = reply.json["id"].as_str().unwrap();
    assert_eq!(app.get(&format!("/v1/requests/{id}")).await.status, 200);
    let sent = &upstream.requests()[0];
    assert_eq!(sent.path, "/v1/chat/completions");
    assert_eq!(
        sent.body["messages"],
        json!([{"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is 2+2?"}])
    );
    assert_eq!(sent.body["max_completion_tokens"], 50);
    assert_eq!(sent.body["response_format"]["json_schema"]["name"], "sum");
    let (z, a) = (sent.raw.find("\"z\"").unwrap(), sent.raw.find("\"a\"").unwrap());
    assert!(z < a, "the schema's members keep their order: {}", sent.raw);
    for unsent in ["metadata", "instructions", "store", "text", "input"] {
        assert!(sent.body.get(unsent).is_none(), "{unsent} in {}", sent.raw);
    }
}

const TEXT_EVENTS: [&str; 9] = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
];

#[tokio::test]
async fn a_stream_tells_every_step() {
    let (app, _upstream) = cloud().await;
    let stream = NamedEvents::of(&app, PATH, &streaming(ask("auto", "hi"))).await;
    assert_eq!(stream.names(), TEXT_EVENTS);
    check_numbers(&stream);
    let deltas = stream.all("response.output_text.delta");
    let text: String = deltas.map(|event| event["delta"].as_str().unwrap()).collect();
    assert_eq!(text, MockUpstream::reply_to("hi"));
    let response = &stream.last()["response"];
    assert_eq!(response["output"][0]["content"][0]["text"], text);
    assert!(response["usage"]["total_tokens"].as_u64() > Some(0), "{response}");
    assert_eq!(response["wattgate"]["model"], "cloud");
    assert!(stream.text.contains("\n: energy {"), "{}", stream.text);
    let created = stream.all("response.created").next().unwrap();
    assert_eq!(created["response"]["status"], "in_progress");
    assert_eq!(created["response"]["id"], response["id"]);
}

#[tokio::test]
async fn a_local_model_reasons_and_calls() {
    let script = "step_ms = 1\n[default]\ntext = \"<think>hm so</think>Let me see. <tool_call>{\\\"name\\\": \\\"get_weather\\\", \\\"arguments\\\": {\\\"city\\\": \\\"Paris\\\"}}</tool_call>\"\n[[answers]]\nwhen = \"17 degrees\"\ntext = \"It is warm.\"\n";
    let (app, _dir) = local(script).await;
    let mut body = ask("smol", "Weather in Paris?");
    body["tools"] = json!([weather()]);
    let stream = NamedEvents::of(&app, PATH, &streaming(body.clone())).await;
    check_numbers(&stream);
    for name in [
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.output_text.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.completed",
    ] {
        assert!(stream.names().contains(&name), "{name} in {:?}", stream.names());
    }
    let whole = app.post(PATH, &body).await.json;
    let of_stream = &stream.last()["response"];
    for response in [&whole, of_stream] {
        let output = response["output"].as_array().unwrap();
        let kinds: Vec<_> = output.iter().map(|item| item["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["reasoning", "message", "function_call"], "{response}");
        assert_eq!(output[0]["content"][0]["text"], "hm so");
        let arguments: Value =
            serde_json::from_str(output[2]["arguments"].as_str().unwrap()).unwrap();
        assert_eq!(arguments, json!({"city": "Paris"}));
        assert!(response["usage"]["output_tokens_details"]["reasoning_tokens"].as_u64() > Some(0));
    }
    // The result, with all that came before, as clients without a store send it.
    let mut items = vec![json!({"role": "user", "content": "Weather in Paris?"})];
    items.extend(whole["output"].as_array().unwrap().iter().cloned());
    let call_id = whole["output"][2]["call_id"].clone();
    items.push(json!({"type": "function_call_output", "call_id": call_id, "output": "17 degrees"}));
    let answered = app.post(PATH, &json!({"model": "smol", "input": items})).await;
    assert_eq!(
        answered.json["output"][0]["content"][0]["text"], "It is warm.",
        "{}",
        answered.text
    );
    // The result alone, as clients with a store send it.
    let result = json!({"model": "smol", "previous_response_id": whole["id"],
        "input": [{"type": "function_call_output", "call_id": call_id, "output": "17 degrees"}]});
    let answered = app.post(PATH, &result).await;
    assert_eq!(
        answered.json["output"][0]["content"][0]["text"], "It is warm.",
        "{}",
        answered.text
    );
}

#[tokio::test]
async fn an_answer_that_was_cut_is_incomplete() {
    let (app, _dir) = local("[default]\ntext = \"one two three four five\"\n").await;
    let mut body = ask("smol", "count");
    body["max_output_tokens"] = json!(2);
    let reply = app.post(PATH, &body).await;
    assert_eq!(reply.json["status"], "incomplete", "{}", reply.text);
    assert_eq!(reply.json["incomplete_details"], json!({"reason": "max_output_tokens"}));
    assert_eq!(reply.json["output"][0]["status"], "incomplete");
    let stream = NamedEvents::of(&app, PATH, &streaming(body)).await;
    assert_eq!(stream.names().last(), Some(&"response.incomplete"));
}

#[tokio::test]
async fn a_custom_tool_gets_its_input_as_text() {
    let answer = r#"{"choices":[{"index":0,"finish_reason":"tool_calls","message":{"content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"patch","arguments":"{\"input\":\"*** a\"}"}}]}}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
    let (app, upstream) = cloud().await;
    upstream.respond_with(Mode::Verbatim(200, "application/json", answer));
    let mut body = ask("cloud", "change it");
    body["tools"] = json!([{"type": "custom", "name": "patch", "description": "d"}]);
    let reply = app.post(PATH, &body).await;
    let call = &reply.json["output"][0];
    assert_eq!((&call["type"], &call["input"]), (&json!("custom_tool_call"), &json!("*** a")));
    assert_eq!(upstream.requests()[0].body["tools"][0]["type"], "function");
    let stream = NamedEvents::of(&app, PATH, &streaming(body)).await;
    check_numbers(&stream);
    let done = stream.all("response.custom_tool_call_input.done").next().unwrap();
    assert_eq!(done["input"], "*** a");
}

#[tokio::test]
async fn a_failure_is_the_last_event_of_its_stream() {
    let (app, upstream) = cloud().await;
    for mode in [Mode::CutMidAnswer, Mode::ErrorMidStream] {
        upstream.respond_with(mode);
        let stream = NamedEvents::of(&app, PATH, &streaming(ask("cloud", "one two three"))).await;
        check_numbers(&stream);
        assert_eq!(stream.names().last(), Some(&"response.failed"), "{:?}", stream.names());
        let response = &stream.last()["response"];
        assert_eq!(response["status"], "failed");
        assert!(response["error"]["message"].is_string(), "{response}");
        assert_eq!(response["wattgate"]["attempts"][0]["outcome"], "failed");
    }
    upstream.respond_with(Mode::Status(500));
    let reply = app.post(PATH, &streaming(ask("cloud", "hi"))).await;
    assert_eq!(reply.error(), (502, "api_error", "upstream_status"));
    assert!(reply.receipt()["attempts"][0].is_object(), "{}", reply.text);
}

#[tokio::test]
async fn a_late_failure_of_the_first_word_is_an_event_too() {
    let upstream = MockUpstream::start().await;
    let config = format!("{}first_byte_timeout_ms = 300\n", cloud_model("cloud", 3.0, &upstream));
    let app = TestApp::start_with(&config, |config| config.server.stream_head_after_ms = 50).await;
    upstream.respond_with(Mode::HangBeforeHeaders);
    let stream = NamedEvents::of(&app, PATH, &streaming(ask("cloud", "hi"))).await;
    let names = ["response.created", "response.in_progress", "response.failed"];
    assert_eq!(stream.names(), names);
}

#[tokio::test]
async fn bad_input_is_refused_by_its_place() {
    let (app, upstream) = cloud().await;
    let output = |id: &str| json!({"type": "function_call_output", "call_id": id, "output": "x"});
    let call = json!({"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"});
    let many: Vec<Value> = vec![json!({"role": "user", "content": "x"}); 10_001];
    for (field, value, param) in [
        ("input", json!([output("a")]), "input"),
        ("input", json!([output("a"), call]), "input"),
        ("input", json!([call]), "input"),
        ("input", json!([call, output("b")]), "input"),
        ("input", json!([]), "input"),
        ("input", json!(7), "input"),
        ("input", json!(["x"]), "input[0]"),
        ("input", json!([{"role": "user"}]), "input[0].content"),
        ("input", json!([{"role": "narrator", "content": "x"}]), "input[0].role"),
        ("input", json!([{"type": "web_search_call", "id": "w"}]), "input[0].type"),
        (
            "input",
            json!([{"role": "user", "content": [{"type": "x"}]}]),
            "input[0].content[0].type",
        ),
        (
            "input",
            json!([{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]),
            "input[0].content[0].file_id",
        ),
        ("input", json!([{"type": "item_reference", "id": "msg_x_0"}]), "input[0].id"),
        ("input", json!(many), "input"),
        ("tools", json!([weather(), {"type": "web_search"}]), "tools[1].type"),
        (
            "tools",
            json!([{"type": "namespace", "name": "n", "tools": [{"type": "web_search"}]}]),
            "tools[0].tools[0].type",
        ),
        ("tools", json!([{"type": "function"}]), "tools[0].name"),
        ("tool_choice", json!({"type": "file_search"}), "tool_choice.type"),
        ("text", json!({"format": {"type": "yaml"}}), "text.format.type"),
        ("text", json!({"format": {"type": "json_schema"}}), "text.format.schema"),
        ("background", json!(true), "background"),
        ("conversation", json!("conv_1"), "conversation"),
        ("prompt", json!({"id": "p"}), "prompt"),
        ("messages", json!([{"role": "user", "content": "x"}]), "input"),
        ("previous_response_id", json!("resp_unknown"), "previous_response_id"),
        ("temperature", json!(-1), "temperature"),
        ("max_output_tokens", json!("many"), "max_output_tokens"),
    ] {
        let mut body = ask("cloud", "hi");
        body[field] = value;
        let reply = app.post(PATH, &body).await;
        assert_eq!(reply.status, 400, "{field}: {}", reply.text);
        assert_eq!(reply.json["error"]["param"], param, "{field}: {}", reply.text);
        assert_eq!(reply.json["error"]["type"], "invalid_request_error");
    }
    let mut body = ask("cloud", "hi");
    body["previous_response_id"] = json!("resp_unknown");
    assert_eq!(app.post(PATH, &body).await.error().2, "previous_response_not_found");
    let unknown = app.post(PATH, &ask("gpt-9", "hi")).await;
    assert_eq!(unknown.error(), (404, "invalid_request_error", "model_not_found"));
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_limit_of_a_local_model_has_the_name_that_the_client_wrote() {
    let (app, _dir) = local("").await;
    let mut body = ask("smol", "hi");
    body["max_output_tokens"] = json!(0);
    let reply = app.post(PATH, &body).await;
    assert_eq!(reply.json["error"]["param"], "max_output_tokens", "{}", reply.text);
    assert_eq!(reply.json["error"]["message"], "`max_output_tokens` must be at least 1");
    let mut body = ask("smol", "hi");
    body["tools"] = json!([weather(), weather()]);
    let reply = app.post(PATH, &body).await;
    assert_eq!(reply.json["error"]["param"], "tools[1].name", "{}", reply.text);
}

#[tokio::test]
async fn a_websocket_is_refused_and_tokens_are_counted() {
    let (app, _upstream) = cloud().await;
    let upgrade = crate::rig::app::client().get(app.url(PATH));
    let upgrade = upgrade.header("connection", "upgrade").header("upgrade", "websocket");
    assert_eq!(upgrade.send().await.unwrap().status(), 426);
    assert_eq!(app.get(PATH).await.status, 405);
    let count = app.post("/v1/responses/input_tokens", &ask("auto", "hello you there")).await;
    assert_eq!(count.json["object"], "response.input_tokens");
    assert!(count.json["input_tokens"].as_u64() > Some(2), "{}", count.text);
}
