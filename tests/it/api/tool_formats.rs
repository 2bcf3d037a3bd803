//! Tools in the format of every model family, over HTTP: the real SmolLM2 with the families' own
//! templates. It was trained on none of them, so its calls are constrained or cued by earlier
//! turns.

use std::path::Path;

use serde_json::{Value, json};

use crate::rig::app::{Sse, TestApp, ask};
use crate::rig::engine::model_path;

/// Every published form.
const FAMILIES: [&str; 5] = ["qwen3", "llama-3.1", "mistral-v3", "mistral-v11", "qwen3-coder"];

async fn gateway(family: &str) -> TestApp {
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/templates");
    let config = format!(
        "[models.smol.llama]\nsource = \"file:{}\"\nchat_template = \"{}\"\ncontext_tokens = 2048\n",
        model_path().display(),
        templates.join(format!("{family}.jinja")).display()
    );
    let app = TestApp::start(&config).await;
    app.until_loaded("smol").await;
    app
}

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {
        "name": name,
        "description": "Plans a trip",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
                "pace": {"enum": ["slow", "fast"]},
                "stops": {"type": "array", "items": {"$ref": "#/$defs/stop"}, "minItems": 1, "maxItems": 2},
                "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            },
            "required": ["city", "days", "pace", "stops"],
            "additionalProperties": false,
            "$defs": {"stop": {"type": "object", "properties": {"at": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["at"],
                "additionalProperties": false}},
        },
    }})
}

fn must_call() -> Value {
    let mut request = ask("smol", "Plan a trip to Genoa.");
    request["tools"] = json!([tool("plan_trip"), tool("plan")]);
    request["tool_choice"] = json!("required");
    request["parallel_tool_calls"] = json!(false);
    request["max_tokens"] = json!(120);
    request
}

/// Checks that the arguments of a call match every keyword of the schema.
fn assert_arguments(call: &Value) -> Value {
    let text = call["function"]["arguments"].as_str().unwrap();
    let arguments: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert!(arguments["city"].is_string(), "{arguments}");
    assert!((1..=9).contains(&arguments["days"].as_u64().unwrap_or(0)), "{arguments}");
    assert!(["slow", "fast"].contains(&arguments["pace"].as_str().unwrap_or("")), "{arguments}");
    let stops = arguments["stops"].as_array().expect("stops");
    assert!(!stops.is_empty() && stops.iter().all(|stop| stop["at"].is_i64()), "{arguments}");
    assert!(matches!(arguments["note"], Value::Null | Value::String(_)), "{arguments}");
    arguments
}

fn calls_of(json: &Value) -> Vec<Value> {
    json["choices"][0]["message"]["tool_calls"].as_array().cloned().unwrap_or_default()
}

/// The calls of a stream, assembled as clients do.
fn streamed(sse: &Sse) -> Vec<Value> {
    let mut calls: Vec<Value> = Vec::new();
    let deltas = sse.chunks.iter().filter_map(|chunk| {
        chunk["choices"][0]["delta"]["tool_calls"].as_array().map(|calls| &calls[0])
    });
    for delta in deltas {
        let index = usize::try_from(delta["index"].as_u64().unwrap()).unwrap();
        if index == calls.len() {
            calls.push(delta.clone());
        } else {
            let more = delta["function"]["arguments"].as_str().unwrap();
            let told = calls[index]["function"]["arguments"].as_str().unwrap().to_owned() + more;
            calls[index]["function"]["arguments"] = json!(told);
        }
    }
    calls
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn forced_calls_match_their_schema_in_every_tool_format() {
    for family in FAMILIES {
        let app = gateway(family).await;
        for (seed, choice) in [json!("required"), named("plan")].into_iter().enumerate() {
            let mut request = must_call();
            request["tool_choice"] = choice.clone();
            // For any seed.
            request["temperature"] = json!(1.5);
            request["seed"] = json!(seed);
            let whole = app.chat(&request).await;
            assert_eq!(whole.status, 200, "{family}: {}", whole.text);
            assert_eq!(
                whole.json["choices"][0]["message"]["content"],
                Value::Null,
                "{}",
                whole.text
            );
            let calls = calls_of(&whole.json);
            assert!(!calls.is_empty(), "{family}: {}", whole.text);
            for call in &calls {
                assert_arguments(call);
            }
            if choice != "required" {
                assert_eq!((calls.len(), &calls[0]["function"]["name"]), (1, &json!("plan")));
            }
            request["stream"] = json!(true);
            let sse = app.stream(&request).await;
            assert_eq!(sse.content(), "", "{family}: nothing of the call's spelling is text");
            let told = streamed(&sse);
            for call in &told {
                assert_arguments(call);
            }
            let deltas =
                sse.chunks.iter().filter(|c| c["choices"][0]["delta"]["tool_calls"].is_array());
            assert!(deltas.count() > 4, "{family}: arguments come as they are written: {sse:?}");
        }
        app.stop().await;
    }
}

fn named(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name}})
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn calls_and_results_are_rendered_in_the_models_tool_format() {
    for family in FAMILIES {
        let app = gateway(family).await;
        let mut request = must_call();
        request["tool_choice"] = named("plan_trip");
        request["temperature"] = json!(0);
        let reply = app.chat(&request).await;
        let calls = calls_of(&reply.json);
        let [call] = &calls[..] else { panic!("{family}: {}", reply.text) };
        let messages = request["messages"].as_array_mut().unwrap();
        messages.push(json!({"role": "assistant", "content": null, "tool_calls": [call]}));
        messages.push(json!({"role": "tool", "tool_call_id": call["id"], "content": "booked"}));
        let tokens = |json: &Value| json["usage"]["prompt_tokens"].as_u64().unwrap();
        request["tool_choice"] = json!("auto");
        let second = app.chat(&request).await;
        assert_eq!(second.status, 200, "{family}: {}", second.text);
        assert!(tokens(&second.json) > tokens(&reply.json), "{family}: {}", second.text);
        app.stop().await;
    }
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn max_tokens_completes_a_call_in_every_tool_format() {
    for family in FAMILIES {
        let app = gateway(family).await;
        let mut request = must_call();
        request["tool_choice"] = named("plan_trip");
        request["messages"][0]["content"] = json!("Plan a trip and say very much about the city.");
        request["temperature"] = json!(1.2);
        for (seed, max_tokens) in [(0, 110), (1, 120), (2, 140)] {
            request["seed"] = json!(seed);
            request["max_tokens"] = json!(max_tokens);
            let reply = app.chat(&request).await;
            let calls = calls_of(&reply.json);
            let [call] = &calls[..] else { panic!("{family}: {}", reply.text) };
            assert_arguments(call);
            let used = reply.json["usage"]["completion_tokens"].as_u64().unwrap();
            assert!(used <= max_tokens, "{family}: {}", reply.text);
        }
        app.stop().await;
    }
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn voluntary_calls_keep_the_models_tool_format() {
    let app = gateway("qwen3-coder").await;
    let mut request = must_call();
    request["tool_choice"] = json!("auto");
    request["temperature"] = json!(0);
    let messages = request["messages"].as_array_mut().unwrap();
    messages.clear();
    for (turn, city) in ["Rome", "Oslo", "Cairo"].iter().enumerate() {
        let arguments =
            json!({"city": city, "days": 2, "pace": "slow", "stops": [{"at": 1}]}).to_string();
        messages.push(json!({"role": "user", "content": format!("Plan a trip to {city}.")}));
        messages.push(json!({"role": "assistant", "content": null, "tool_calls": [
                {"id": format!("call_{turn}"), "type": "function",
                 "function": {"name": "plan_trip", "arguments": arguments}}]}));
    }
    messages.push(json!({"role": "user", "content": "Plan a trip to Paris."}));
    let reply = app.chat(&request).await;
    let calls = calls_of(&reply.json);
    assert!(!calls.is_empty(), "{}", reply.text);
    let arguments = assert_arguments(&calls[0]);
    assert!(arguments["city"].as_str().unwrap().contains("Paris"), "{arguments}");
}
