//! Tools and reasoning over HTTP, on the real SmolLM2: with the fallback format, as its template
//! has no tools, and with templates of other families in place of its own.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::rig::app::{Reply, Sse, TestApp, ask, cloud_model};
use crate::rig::engine::model_path;
use crate::rig::local_models::fake_smol;
use crate::rig::mock_upstream::MockUpstream;

fn model_at(path: &Path) -> String {
    format!(
        "[models.smol]\nability = -2.5\n[models.smol.llama]\nsource = \"file:{}\"\ncontext_tokens = 1024\n",
        path.display()
    )
}

async fn gateway(path: &Path) -> TestApp {
    let app = TestApp::start(&model_at(path)).await;
    app.until_loaded("smol").await;
    app
}

/// A copy of the model whose chat template is `template`, which is shorter than the original.
fn with_template(template: &str) -> (TempDir, PathBuf) {
    let mut gguf = std::fs::read(model_path()).unwrap();
    let begin = b"{% for message in messages %}{% if loop.first";
    let end = b"{{ '<|im_start|>assistant\n' }}{% endif %}";
    let find =
        |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|w| w == what).unwrap();
    let at = find(&gguf, begin);
    let length = find(&gguf[at..], end) + end.len();
    // A comment pads the template, so that the layout of the file stays the same.
    let filler = length.checked_sub(template.len() + "{##}".len()).expect("a short template");
    let template = format!("{template}{{#{}#}}", " ".repeat(filler));
    gguf[at..at + length].copy_from_slice(template.as_bytes());
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, gguf).unwrap();
    (dir, path)
}

fn weather() -> Value {
    json!({"type": "function", "function": {
        "name": "get_weather",
        "description": "Current weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": false,
        },
    }})
}

/// A question that must be answered by a call.
fn must_call() -> Value {
    let mut request = ask("smol", "What is the weather in Paris?");
    request["tools"] = json!([weather()]);
    request["tool_choice"] = json!("required");
    request["temperature"] = json!(0);
    request["max_tokens"] = json!(128);
    request
}

/// A question after others that were answered by calls for their cities: even a small model
/// continues the pattern.
fn used_to_call(earlier: &[&[&str]], question: &str) -> Value {
    let mut request = must_call();
    request["tool_choice"] = json!("auto");
    let messages = request["messages"].as_array_mut().unwrap();
    messages.clear();
    for (turn, cities) in earlier.iter().enumerate() {
        let asked = cities.join(" and in ");
        messages
            .push(json!({"role": "user", "content": format!("What is the weather in {asked}?")}));
        let calls = cities.iter().enumerate().map(|(place, city)| {
            let arguments = json!({"city": city}).to_string();
            json!({"id": format!("call_{turn}_{place}"), "type": "function",
                "function": {"name": "get_weather", "arguments": arguments}})
        });
        messages.push(
            json!({"role": "assistant", "content": null, "tool_calls": calls.collect::<Vec<_>>()}),
        );
    }
    messages.push(json!({"role": "user", "content": question}));
    request
}

/// The call of an answer that consists of one call.
fn call_of(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.text);
    let choice = &reply.json["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{}", reply.text);
    assert_eq!(choice["message"]["content"], Value::Null, "{}", reply.text);
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 1, "{}", reply.text);
    assert!(calls[0]["id"].as_str().unwrap().starts_with("call_"));
    assert_eq!(
        (&calls[0]["type"], &calls[0]["function"]["name"]),
        (&json!("function"), &json!("get_weather"))
    );
    calls[0].clone()
}

fn assert_call(reply: &Reply) -> Value {
    let call = call_of(reply);
    let arguments: Value =
        serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["city"].as_str().unwrap().contains("Paris"), "{arguments}");
    call
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_call_its_result_and_a_final_answer() {
    let app = gateway(&model_path()).await;
    let mut request = must_call();
    let reply = app.chat(&request).await;
    let call = assert_call(&reply);
    assert_eq!(reply.receipt()["route"], "local");
    let messages = request["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": null, "tool_calls": [call]}));
    messages.push(
        json!({"role": "tool", "tool_call_id": call["id"], "content": "17 degrees and sunny"}),
    );
    request["tool_choice"] = json!("none");
    let reply = app.chat(&request).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert!(!reply.content().is_empty(), "{}", reply.text);
    assert_ne!(reply.json["choices"][0]["finish_reason"], "tool_calls");
    assert!(reply.json["choices"][0]["message"].get("tool_calls").is_none());
}

/// Name, id and arguments of the one call of a stream.
fn streamed_call(sse: &Sse) -> (String, String, String) {
    let deltas = sse.chunks.iter().filter_map(|chunk| {
        chunk["choices"][0]["delta"]["tool_calls"].as_array().map(|calls| &calls[0])
    });
    let (mut name, mut id, mut arguments) = (String::new(), String::new(), String::new());
    for (place, delta) in deltas.enumerate() {
        assert_eq!(delta["index"], 0);
        assert_eq!(delta.get("id").is_some(), place == 0, "{delta}");
        name += delta["function"]["name"].as_str().unwrap_or_default();
        id += delta["id"].as_str().unwrap_or_default();
        arguments += delta["function"]["arguments"].as_str().unwrap();
    }
    (name, id, arguments)
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_streamed_call_equals_the_whole_one() {
    let app = gateway(&model_path()).await;
    let mut request = must_call();
    let whole = assert_call(&app.chat(&request).await);
    request["stream"] = json!(true);
    let sse = app.stream(&request).await;
    assert!(sse.done);
    assert_eq!(sse.chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let (name, id, arguments) = streamed_call(&sse);
    assert_eq!(name, "get_weather");
    assert!(id.starts_with("call_"));
    assert_eq!(whole["function"]["arguments"], arguments);
    assert_eq!(sse.content(), "", "nothing of the call's spelling is text");
    assert!(sse.chunks.len() > 4, "arguments come as they are written: {sse:?}");
    assert_eq!(sse.chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn optional_tools_do_not_change_a_plain_answer() {
    let app = gateway(&model_path()).await;
    let mut request = must_call();
    request["tool_choice"] = json!("none");
    let none = app.chat(&request).await;
    assert!(!none.content().is_empty(), "{}", none.text);
    request["tool_choice"] = json!("auto");
    let auto = app.chat(&request).await;
    assert_eq!(auto.status, 200, "{}", auto.text);
    let tokens = |reply: &Reply| reply.json["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(tokens(&auto) > tokens(&none) + 50, "only `auto` tells the model of the tools");
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_required_call_of_several_tools_matches_the_schema_of_its_tool() {
    let app = gateway(&model_path()).await;
    let mut request = must_call();
    let time = json!({"type": "function", "function": {
        "name": "get_time",
        "parameters": {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"]},
    }});
    request["tools"] = json!([time, weather()]);
    request["parallel_tool_calls"] = json!(false);
    // For any seed.
    request["temperature"] = json!(2);
    for seed in 0..4 {
        request["seed"] = json!(seed);
        let reply = app.chat(&request).await;
        let choice = &reply.json["choices"][0];
        assert_eq!(choice["message"]["content"], Value::Null, "{}", reply.text);
        let call = &choice["message"]["tool_calls"][0]["function"];
        let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
        match call["name"].as_str().unwrap() {
            "get_time" => assert!(["UTC", "CET"].contains(&arguments["zone"].as_str().unwrap())),
            "get_weather" => assert!(arguments["city"].is_string(), "{arguments}"),
            other => panic!("{other} was not offered"),
        }
    }
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn each_choice_has_its_own_call() {
    let app = gateway(&model_path()).await;
    let mut request = must_call();
    request["n"] = json!(2);
    let reply = app.chat(&request).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let choices = reply.json["choices"].as_array().unwrap();
    let ids: Vec<&Value> =
        choices.iter().map(|choice| &choice["message"]["tool_calls"][0]["id"]).collect();
    assert!(ids.len() == 2 && ids[0] != ids[1] && ids[0].is_string(), "{}", reply.text);
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_voluntary_call_matches_its_schema() {
    let app = gateway(&model_path()).await;
    let mut request =
        used_to_call(&[&["Rome"], &["Oslo"], &["Cairo"]], "What is the weather in Paris?");
    // This value occurs only in the schema.
    let parameters = &mut request["tools"][0]["function"]["parameters"];
    parameters["properties"]["unit"] = json!({"enum": ["kelvin", "celsius"]});
    parameters["required"] = json!(["city", "unit"]);
    let call = assert_call(&app.chat(&request).await);
    let arguments: Value =
        serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(["kelvin", "celsius"].contains(&arguments["unit"].as_str().unwrap()), "{arguments}");
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn parallel_calls_are_allowed_unless_disabled() {
    let app = gateway(&model_path()).await;
    let earlier: [&[&str]; 3] = [&["Rome", "Oslo"], &["Cairo", "Lima"], &["Bonn", "Kyiv"]];
    let mut request = used_to_call(&earlier, "What is the weather in Paris and in London?");
    for choice in ["auto", "required"] {
        request["tool_choice"] = json!(choice);
        let reply = app.chat(&request).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let calls = reply.json["choices"][0]["message"]["tool_calls"].as_array().unwrap();
        assert!(calls.len() > 1, "{choice}: {}", reply.text);
        assert_ne!(calls[0]["id"], calls[1]["id"]);
        for call in calls {
            let arguments = call["function"]["arguments"].as_str().unwrap();
            assert!(serde_json::from_str::<Value>(arguments).unwrap()["city"].is_string());
        }
    }
    request["stream"] = json!(true);
    let sse = app.stream(&request).await;
    let indices = sse
        .chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"][0]["index"].as_u64());
    assert!(indices.clone().is_sorted() && indices.max() >= Some(1), "{sse:?}");
    request["stream"] = json!(false);
    request["parallel_tool_calls"] = json!(false);
    assert_call(&app.chat(&request).await);
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_call_ends_at_max_tokens_and_not_at_a_stop_string() {
    let app = gateway(&model_path()).await;
    let mut request = must_call();
    request["stop"] = json!(["Paris", "\n", "\""]);
    assert_call(&app.chat(&request).await);
    request["max_tokens"] = json!(20);
    request["tools"][0]["function"]["parameters"]["properties"]["why"] = json!({"type": "string"});
    request["tools"][0]["function"]["parameters"]["required"] = json!(["why", "city"]);
    let reply = app.chat(&request).await;
    let choice = &reply.json["choices"][0];
    assert_eq!(choice["finish_reason"], "length", "{}", reply.text);
    let arguments = choice["message"]["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(arguments).is_ok(), "completed in time: {arguments}");
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn schemas_with_definitions_constrain_and_unsupported_ones_fail_only_if_strict() {
    let app = gateway(&model_path()).await;
    let mut request = must_call();
    request["tools"] = json!([weather(), weather()]);
    request["tools"][1]["function"]["name"] = json!("get_forecast");
    for tool in 0..2 {
        request["tools"][tool]["function"]["parameters"] = json!({
            "$defs": {"place": {
                "type": "object",
                "properties": {"city": {"type": "string", "maxLength": 20}},
                "required": ["city"],
                "additionalProperties": false,
            }},
            "type": "object",
            "properties": {"place": {"$ref": "#/$defs/place"}},
            "required": ["place"],
            "additionalProperties": false,
        });
    }
    request["parallel_tool_calls"] = json!(false);
    let reply = app.chat(&request).await;
    let call = &reply.json["choices"][0]["message"]["tool_calls"][0]["function"];
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["place"]["city"].is_string(), "{}", reply.text);

    let unkeepable =
        json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "(open"}}});
    request["tools"][1]["function"]["parameters"] = unkeepable;
    assert_eq!(app.chat(&request).await.status, 200);
    request["tools"][1]["function"]["strict"] = json!(true);
    let reply = app.chat(&request).await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    assert_eq!(reply.json["error"]["param"], "tools[1].function.parameters", "{}", reply.text);
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn response_format_applies_to_answers_without_a_call() {
    let app = gateway(&model_path()).await;
    let mut request = must_call();
    request["tool_choice"] = json!("auto");
    request["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": {
        "type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"],
        "additionalProperties": false,
    }}});
    // Earlier answers in words keep a small model from calling.
    let messages = request["messages"].as_array_mut().unwrap();
    messages.clear();
    for (question, mood) in
        [("Rain?", "bad"), ("Sun?", "good"), ("Snow?", "bad"), ("Wind?", "good")]
    {
        messages.push(json!({"role": "user", "content": question}));
        messages.push(json!({"role": "assistant", "content": format!("{{\"mood\": \"{mood}\"}}")}));
    }
    messages.push(json!({"role": "user", "content": "Hail?"}));
    let in_words = app.chat(&request).await;
    let answer: Value = serde_json::from_str(in_words.content())
        .unwrap_or_else(|error| panic!("{error}: {}", in_words.text));
    assert!(["good", "bad"].contains(&answer["mood"].as_str().unwrap()), "{answer}");
    let form = request["response_format"].take();
    let mut request =
        used_to_call(&[&["Rome"], &["Oslo"], &["Cairo"]], "What is the weather in Paris?");
    request["response_format"] = form;
    assert_call(&app.chat(&request).await);
}

#[tokio::test]
async fn malformed_tools_are_refused_by_name() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&cloud_model("cloud", 3.0, &upstream)).await;
    let function = |function: Value| json!([{"type": "function", "function": function}]);
    let cases = [
        (json!({"tools": {}}), "tools"),
        (json!({"tools": [7]}), "tools[0]"),
        (json!({"tools": function(json!({}))}), "tools[0].function.name"),
        (json!({"tools": [weather()], "tool_choice": "sometimes"}), "tool_choice"),
        (json!({"tools": [weather()], "parallel_tool_calls": "yes"}), "parallel_tool_calls"),
    ];
    for (more, param) in cases {
        let mut request = ask("cloud", "hi");
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let reply = app.chat(&request).await;
        assert_eq!(reply.error(), (400, "invalid_request_error", "invalid_value"), "{more}");
        assert_eq!(reply.json["error"]["param"], param, "{}", reply.text);
    }
    let calls = json!([{"id": "a", "type": "function", "function": {"name": "f"}}]);
    let messages = json!([{"role": "assistant", "tool_calls": calls}]);
    let reply = app.chat(&json!({"model": "cloud", "messages": messages})).await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    assert_eq!(reply.json["error"]["param"], "messages[0].tool_calls[0].function.arguments");
}

#[tokio::test]
async fn a_builtin_tool_is_routed_to_an_upstream() {
    let upstream = MockUpstream::start().await;
    let config = fake_smol("") + &cloud_model("cloud", -5.0, &upstream);
    let app = TestApp::start_fake(&config).await;
    app.until_loaded("smol").await;
    let custom = json!([{"type": "custom", "custom": {"name": "c"}}]);
    let mut request = ask("auto", "hi");
    request["tools"] = custom;
    let reply = app.chat(&request).await;
    assert_eq!(reply.receipt()["model"], "cloud", "{}", reply.text);
    request["model"] = json!("smol");
    let reply = app.chat(&request).await;
    assert_eq!(reply.error(), (400, "invalid_request_error", "unsupported_tool"));
    assert_eq!(reply.json["error"]["param"], "tools[0].type");
}

/// Short replacements for the templates of families with tools; the real ones are tested without a
/// model.
const CHAT: &str =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_template_with_tools_receives_them_and_its_calls_are_parsed() {
    for marker in ["<tool_call>", "<|python_tag|>", "[TOOL_CALLS]"] {
        let template = format!(
            "{{% if tools %}}<|im_start|>system\nUse a tool: {{{{ tools | tojson }}}}<|im_end|>\n{{% endif %}}\
             {CHAT}<|im_start|>assistant\n{{# {marker} #}}"
        );
        let (_dir, path) = with_template(&template);
        let app = gateway(&path).await;
        let call = call_of(&app.chat(&must_call()).await);
        // Only the schema is checked: the model does not know which values to fill in.
        let arguments: Value =
            serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
        assert!(arguments["city"].is_string(), "{marker}: {arguments}");
        app.stop().await;
    }
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn reasoning_is_separated_and_counted() {
    let template = format!("{CHAT}<|im_start|>assistant\n<think>\n{{# </think> #}}");
    let (_dir, path) = with_template(&template);
    let app = gateway(&path).await;
    let mut request = ask("smol", "Why is the sky blue?");
    request["temperature"] = json!(0);
    request["max_tokens"] = json!(12);
    let reply = app.chat(&request).await;
    // The prompt opens the reasoning, and this model never closes it.
    let message = &reply.json["choices"][0]["message"];
    assert!(!message["reasoning_content"].as_str().unwrap().is_empty(), "{}", reply.text);
    assert_eq!(reply.content(), "");
    let usage = &reply.json["usage"];
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], usage["completion_tokens"]);
    request["stream"] = json!(true);
    let sse = app.stream(&request).await;
    let pieces = sse
        .chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["reasoning_content"].as_str());
    assert_eq!(message["reasoning_content"], pieces.collect::<String>());
    assert_eq!(sse.chunks[0]["choices"][0]["delta"]["role"], "assistant");
}

/// Opens the reasoning, in every turn of the assistant.
const THINKING: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n{% endif %}\
    {{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n<think>\n{# </think> #}";

/// A question after others that were answered after reasoning, so that even a small model continues
/// the pattern.
fn used_to_think(more: &Value) -> Value {
    let mut messages = Vec::new();
    for (colour, thing) in
        [("blue", "sky"), ("green", "grass"), ("yellow", "sun"), ("white", "snow")]
    {
        messages.push(json!({"role": "user", "content": format!("What colour is the {thing}?")}));
        let thought = format!("The {thing}\nis {colour}.\n</think>\n\nIt is {colour}.\nYes.");
        messages.push(json!({"role": "assistant", "content": thought}));
    }
    messages.push(json!({"role": "user", "content": "What colour is blood?"}));
    let mut request =
        json!({"model": "smol", "messages": messages, "temperature": 0, "max_tokens": 64});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn reasoning_precedes_text_stop_strings_format_and_calls() {
    let (_dir, path) = with_template(THINKING);
    let app = gateway(&path).await;
    let thoughtful = async |more: &Value| {
        let reply = app.chat(&used_to_think(more)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let message = reply.json["choices"][0]["message"].clone();
        let thought = message["reasoning_content"].as_str().unwrap_or_default().to_owned();
        assert!(thought.contains('\n') && !thought.contains("think>"), "{}", reply.text);
        let usage = &reply.json["usage"];
        let reasoned = usage["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap();
        assert!(reasoned > 4 && reasoned < usage["completion_tokens"].as_u64().unwrap(), "{usage}");
        reply
    };
    let plain = thoughtful(&json!({})).await;
    assert!(plain.content().starts_with("It is"), "{}", plain.text);
    let stopped = thoughtful(&json!({"stop": ["\n"]})).await;
    assert!(!stopped.content().is_empty() && plain.content().starts_with(stopped.content()));
    let schema = json!({"type": "object", "properties": {"colour": {"type": "string", "maxLength": 12}},
        "required": ["colour"], "additionalProperties": false});
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "colour", "schema": schema}});
    let formed = thoughtful(&json!({"response_format": format})).await;
    let answer: Value = serde_json::from_str(formed.content()).expect("the form");
    assert!(answer["colour"].is_string(), "{answer}");
    let tools = json!([{"type": "function", "function": {"name": "paint", "parameters": schema}}]);
    let called = thoughtful(&json!({"tools": tools, "tool_choice": "required"})).await;
    let call = &called.json["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(call["name"], "paint", "{}", called.text);
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["colour"].is_string(), "{arguments}");
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn functions_of_the_older_api_are_called_and_answered_in_its_words() {
    let app = gateway(&model_path()).await;
    let mut request = must_call();
    let function = weather()["function"].clone();
    for field in ["tools", "tool_choice"] {
        request.as_object_mut().unwrap().remove(field);
    }
    request["functions"] = json!([function]);
    request["function_call"] = json!({"name": function["name"]});
    let reply = app.chat(&request).await;
    let choice = &reply.json["choices"][0];
    let call = &choice["message"]["function_call"];
    assert_eq!(choice["finish_reason"], "function_call", "{}", reply.text);
    assert_eq!((&call["name"], &choice["message"]["content"]), (&function["name"], &Value::Null));
    assert!(choice["message"].get("tool_calls").is_none(), "{}", reply.text);
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["city"].is_string(), "{arguments}");
    request["stream"] = json!(true);
    let sse = app.stream(&request).await;
    let deltas = sse.chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]["function_call"]);
    let (mut name, mut streamed) = (String::new(), String::new());
    for delta in deltas {
        name += delta["name"].as_str().unwrap_or_default();
        streamed += delta["arguments"].as_str().unwrap_or_default();
    }
    assert_eq!(json!(name), function["name"]);
    assert!(serde_json::from_str::<Value>(&streamed).unwrap()["city"].is_string(), "{streamed}");
    let ends: Vec<_> =
        sse.chunks.iter().map(|chunk| &chunk["choices"][0]["finish_reason"]).collect();
    assert!(ends.contains(&&json!("function_call")), "{ends:?}");
}
