//! Options of a local answer beyond plain text, with the real SmolLM2: sampling fields, choices,
//! log-probabilities, structured output.

use serde_json::{Value, json};

use crate::rig::app::{Sse, TestApp, ask};
use crate::rig::local_models::{self, fake_smol};

async fn gateway() -> TestApp {
    let app = TestApp::start(&local_models::smol("")).await;
    app.until_loaded("smol").await;
    app
}

/// A greedy request with more fields.
fn request(prompt: &str, max_tokens: u32, more: &Value) -> Value {
    let mut request = ask("smol", prompt);
    request["max_tokens"] = json!(max_tokens);
    request["temperature"] = json!(0);
    for (field, value) in more.as_object().unwrap() {
        request[field] = value.clone();
    }
    request
}

fn schema(schema: &Value) -> Value {
    json!({"response_format": {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": true, "schema": schema},
    }})
}

/// The text of the only choice.
async fn answer(app: &TestApp, request: &Value) -> String {
    let reply = app.chat(request).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.content().to_owned()
}

fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": false,
    })
}

fn is_person(value: &Value) -> bool {
    let strings = |tags: &Vec<Value>| !tags.is_empty() && tags.iter().all(Value::is_string);
    value.as_object().is_some_and(|fields| fields.len() == 3)
        && value["name"].is_string()
        && value["age"].as_u64().is_some_and(|age| age <= 150)
        && value["tags"].as_array().is_some_and(strings)
}

fn is_tree(value: &Value) -> bool {
    ["leaf", "branch"].iter().any(|label| value["label"] == *label)
        && value["children"].as_array().is_some_and(|children| children.iter().all(is_tree))
}

type Check = fn(&Value) -> bool;

/// Schemas, each with its own check.
fn schemas() -> Vec<(Value, Check)> {
    let tree = json!({
        "$defs": {"node": {
            "type": "object",
            "properties": {
                "label": {"enum": ["leaf", "branch"]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["label", "children"],
            "additionalProperties": false,
        }},
        "$ref": "#/$defs/node",
    });
    vec![
        (person(), is_person),
        (tree, is_tree),
        (json!({"enum": ["red", "green", 7]}), |value| {
            [json!("red"), json!("green"), json!(7)].contains(value)
        }),
        (
            json!({"type": "array", "items": {"type": "boolean"}, "minItems": 3, "maxItems": 3}),
            |value| {
                value
                    .as_array()
                    .is_some_and(|flags| flags.len() == 3 && flags.iter().all(Value::is_boolean))
            },
        ),
        (json!({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}$"}), |value| {
            let text = value.as_str().unwrap_or("");
            text.len() == 7
                && text.bytes().enumerate().all(|(at, byte)| (at == 4) == (byte == b'-'))
        }),
        (json!({"anyOf": [{"type": "null"}, {"type": "object"}]}), |value| {
            value.is_null() || value.is_object()
        }),
    ]
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn constrained_answers_are_valid_streamed_and_whole_next_to_plain_ones() {
    let app = gateway().await;
    let jobs = schemas()
        .into_iter()
        .enumerate()
        .flat_map(|(seed, job)| [(seed, job.clone(), false), (seed, job, true)]);
    let structured = jobs.map(|(seed, (wanted, check), streams)| {
        let app = &app;
        async move {
            let mut request = request("Describe anything you like, wildly.", 120, &schema(&wanted));
            // A high temperature, at which the unconstrained model does not write JSON.
            request["temperature"] = json!(1.5);
            request["seed"] = json!(seed);
            let text = if streams {
                request["stream"] = json!(true);
                app.stream(&request).await.content()
            } else {
                answer(app, &request).await
            };
            let value: Value =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert!(check(&value), "{wanted}: {text}");
        }
    });
    let plain_request = request("Who wrote Hamlet?", 16, &json!({}));
    let plain = async { answer(&app, &plain_request).await };
    let (_, plain) = futures::future::join(futures::future::join_all(structured), plain).await;
    assert!(plain.contains("Shakespeare"), "{plain}");
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn max_tokens_completes_a_constrained_answer_if_possible_and_reports_length() {
    let app = gateway().await;
    for (max_tokens, format) in [
        (24, schema(&person())),
        (25, schema(&person())),
        (40, schema(&person())),
        (40, json!({"response_format": {"type": "json_object"}})),
        (16, schema(&json!({"type": "string"}))),
    ] {
        for seed in 0..3 {
            let mut request = request("Write a very long story.", max_tokens, &format);
            request["temperature"] = json!(1.2);
            request["seed"] = json!(seed);
            let reply = app.chat(&request).await;
            let value: Result<Value, _> = serde_json::from_str(reply.content());
            assert!(value.is_ok(), "{max_tokens} tokens: {}", reply.text);
            let used = reply.json["usage"]["completion_tokens"].as_u64().unwrap();
            assert!(used <= u64::from(max_tokens), "{}", reply.text);
        }
    }
    // No valid answer fits this limit: the answer is cut like a plain one.
    let reply = app.chat(&request("Hi", 3, &schema(&person()))).await;
    assert_eq!(reply.json["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn an_unsupported_schema_is_refused_by_keyword() {
    let app = gateway().await;
    for wrong in [
        schema(&json!({"type": "nonsense"})),
        schema(&json!({"$ref": "https://example.com/schema"})),
        schema(&json!({"type": "string", "pattern": "(unclosed"})),
        schema(&json!(false)),
        json!({"response_format": {"type": "json_schema"}}),
        json!({"response_format": {"type": "xml"}}),
    ] {
        let reply = app.chat(&request("Hi", 8, &wrong)).await;
        assert_eq!(reply.status, 400, "{wrong}: {}", reply.text);
        assert_eq!(reply.json["error"]["param"], "response_format", "{}", reply.text);
    }
    assert_eq!(app.chat(&request("Hi", 4, &json!({}))).await.status, 200);
}

#[tokio::test]
async fn fields_out_of_range_are_refused_by_name() {
    let app = TestApp::start_fake(&fake_smol("")).await;
    app.until_loaded("smol").await;
    for (field, value) in [
        ("min_p", json!(1.5)),
        ("top_k", json!(-2)),
        ("frequency_penalty", json!(3)),
        ("repeat_penalty", json!(0)),
        ("top_logprobs", json!(2)),
        ("logit_bias", json!({"5": 101})),
        ("n", json!(0)),
        ("n", json!(100)),
    ] {
        let reply = app.chat(&request("Hi", 4, &json!({field: value}))).await;
        assert_eq!(reply.status, 400, "{field} = {value}: {}", reply.text);
        assert_eq!(reply.json["error"]["param"], field, "{}", reply.text);
    }
}

fn check_logprobs(content: &[Value], text: &str, top: usize) {
    let mut bytes = Vec::new();
    for token in content {
        let ranked = token["top_logprobs"].as_array().unwrap();
        assert_eq!(ranked.len(), top);
        // Greedy: the chosen token is the most probable one.
        assert_eq!(
            (&ranked[0]["token"], &ranked[0]["logprob"]),
            (&token["token"], &token["logprob"])
        );
        let logprobs: Vec<f64> =
            ranked.iter().map(|one| one["logprob"].as_f64().unwrap()).collect();
        assert!(logprobs.is_sorted_by(|a, b| a >= b) && logprobs[0] <= 0.0, "{logprobs:?}");
        let mass: f64 = logprobs.iter().map(|logprob| logprob.exp()).sum();
        assert!((0.0..1.0001).contains(&mass), "{mass}");
        let token_bytes = token["bytes"].as_array().unwrap().iter();
        bytes.extend(token_bytes.map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap()));
    }
    assert_eq!(String::from_utf8_lossy(&bytes), text, "the tokens spell the answer");
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn logprobs_spell_the_answer_whole_and_streamed() {
    let app = gateway().await;
    let asked = json!({"logprobs": true, "top_logprobs": 4});
    let mut request = request("What is the capital of France? \u{1f40c}", 24, &asked);
    let reply = app.chat(&request).await;
    let choice = &reply.json["choices"][0];
    let content = choice["logprobs"]["content"].as_array().unwrap();
    check_logprobs(content, reply.content(), 4);
    request["stream"] = json!(true);
    let sse = app.stream(&request).await;
    let streamed: Vec<Value> = sse
        .chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array())
        .flatten()
        .cloned()
        .collect();
    check_logprobs(&streamed, &sse.content(), 4);
    // No log-probabilities unless requested.
    let plain = app.chat(&self::request("Hi", 4, &json!({}))).await;
    assert_eq!(plain.json["choices"][0]["logprobs"], Value::Null);
}

/// The text of each choice of a stream, by index.
fn texts(sse: &Sse, count: usize) -> Vec<String> {
    let mut texts = vec![String::new(); count];
    for choice in sse.chunks.iter().filter_map(|chunk| chunk["choices"].get(0)) {
        let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
        texts[index] += choice["delta"]["content"].as_str().unwrap_or("");
    }
    texts
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn three_choices_are_three_answers_of_one_request() {
    let app = gateway().await;
    let asked = json!({"n": 3, "temperature": 1, "seed": 5});
    let mut request = request("Tell me about a river.", 12, &asked);
    let reply = app.chat(&request).await;
    let choices = reply.json["choices"].as_array().unwrap();
    let whole: Vec<&str> =
        choices.iter().map(|choice| choice["message"]["content"].as_str().unwrap()).collect();
    assert_eq!(choices.iter().map(|c| c["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(whole[0] != whole[1] && whole[1] != whole[2], "{whole:?}");
    let usage = &reply.json["usage"];
    assert!((3..=36).contains(&usage["completion_tokens"].as_u64().unwrap()), "{usage}");
    assert!(usage["prompt_tokens"].as_u64() < Some(60), "the prompt counts once: {usage}");
    let record = app.settled(reply.receipt()["request_id"].as_str().unwrap()).await;
    assert_eq!(record["attempts"].as_array().unwrap().len(), 1);
    assert!(record["energy"]["joules"].as_f64() > Some(0.0), "{record}");

    request["stream"] = json!(true);
    let sse = app.stream(&request).await;
    assert!(sse.done);
    assert!(texts(&sse, 3).iter().all(|text| !text.is_empty()), "{sse:?}");
    let ends = sse.chunks.iter().filter(|chunk| chunk["choices"][0]["finish_reason"].is_string());
    assert_eq!(ends.count(), 3);
    let roles = sse.chunks.iter().filter(|chunk| chunk["choices"][0]["delta"]["role"].is_string());
    assert_eq!(roles.count(), 3);
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn sampling_fields_take_effect() {
    let app = gateway().await;
    // A small model repeats itself at the end of its answer.
    let ask = async |more: &Value| {
        let mut request = request("Repeat the word sea forever.", 48, more);
        request["ignore_eos"] = json!(true);
        answer(&app, &request).await
    };
    let plain = ask(&json!({})).await;
    assert_eq!(
        plain,
        ask(&json!({"temperature": 2, "top_k": 1})).await,
        "one token to choose from"
    );
    assert_eq!(plain, ask(&json!({"temperature": 2, "min_p": 1})).await, "only the most probable");
    let repeats = |text: &str| {
        let words: Vec<&str> = text.split_whitespace().collect();
        let distinct: std::collections::HashSet<&&str> = words.iter().collect();
        words.len() - distinct.len()
    };
    for penalty in [
        json!({"frequency_penalty": 2}),
        json!({"presence_penalty": 2}),
        json!({"repeat_penalty": 1.8}),
    ] {
        let varied = ask(&penalty).await;
        assert!(repeats(&varied) < repeats(&plain), "{penalty}: {varied} / {plain}");
    }
    let hot = json!({"temperature": 1.4, "seed": 11, "top_p": 0.95, "frequency_penalty": 0.3});
    // The first request fills the prompt cache, so that the two compared answers are computed
    // alike.
    ask(&hot).await;
    assert_eq!(ask(&hot).await, ask(&hot).await);
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn logit_bias_forbids_and_forces_a_token_and_ignore_eos_works() {
    let app = gateway().await;
    let question = "What is the capital of France?";
    let forced = json!({"logit_bias": {"1000": 100}, "logprobs": true});
    let reply = app.chat(&request(question, 4, &forced)).await;
    let tokens = reply.json["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let same = tokens.iter().all(|one| one["token"] == tokens[0]["token"]);
    assert!(tokens.len() == 4 && same, "{}", reply.text);
    // One half of the vocabulary holds the greedy token: forbidding the other changes nothing.
    let first = answer(&app, &request(question, 1, &json!({}))).await;
    let mut without = Vec::new();
    for half in 0..2 {
        let ids = (0..49_152).filter(|id| id % 2 == half);
        let bias: Value = ids.map(|id| (id.to_string(), json!(-100))).collect();
        without.push(answer(&app, &request(question, 1, &json!({"logit_bias": bias}))).await);
    }
    let unchanged = without.iter().filter(|text| **text == first).count();
    assert_eq!(unchanged, 1, "{first:?} {without:?}");
    let endless = app.chat(&request("Say hi.", 64, &json!({"ignore_eos": true}))).await;
    assert_eq!(endless.json["usage"]["completion_tokens"], 64);
    assert_eq!(endless.json["choices"][0]["finish_reason"], "length");
}

/// Tokens, text and finish of each choice of a stream.
fn told(chunks: &[Value], choices: usize) -> Vec<(Vec<Value>, String, Value)> {
    let mut told = vec![(vec![], String::new(), Value::Null); choices];
    for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
        let (tokens, text, finish) =
            &mut told[usize::try_from(choice["index"].as_u64().unwrap()).unwrap()];
        let logprobs = &choice["logprobs"];
        let list = logprobs["content"].as_array().or(logprobs["tokens"].as_array());
        tokens.extend(list.into_iter().flatten().map(|token| match token.get("token") {
            Some(text) => text.clone(),
            None => token.clone(),
        }));
        *text += choice["delta"]["content"].as_str().or(choice["text"].as_str()).unwrap_or("");
        if choice["finish_reason"].is_string() {
            *finish = choice["finish_reason"].clone();
        }
    }
    told
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn each_choice_streams_the_logprobs_of_its_own_text() {
    let app = gateway().await;
    for n in 1..=4 {
        let more = json!({"n": n, "logprobs": true, "max_tokens": 12, "seed": 4, "temperature": 1,
            "stream_options": {"include_usage": true}});
        let mut request = ask("smol", "Name a colour.");
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let whole = app.chat(&request).await;
        request["stream"] = json!(true);
        let sse = app.stream(&request).await;
        let streamed = told(&sse.chunks, n);
        for (choice, (tokens, text, finish)) in
            whole.json["choices"].as_array().unwrap().iter().zip(&streamed)
        {
            let wanted = choice["logprobs"]["content"].as_array().unwrap();
            let wanted: Vec<&Value> = wanted.iter().map(|token| &token["token"]).collect();
            assert_eq!(tokens.iter().collect::<Vec<_>>(), wanted, "{n}: {text}");
            assert_eq!(
                (&json!(text), finish),
                (&choice["message"]["content"], &choice["finish_reason"])
            );
        }
        let (last, others) = sse.chunks.split_last().unwrap();
        assert!(last["usage"].is_object() && others.iter().all(|chunk| chunk["usage"].is_null()));
        let print = whole.json["system_fingerprint"].as_str().unwrap();
        assert!(print.starts_with("fp_") && last["system_fingerprint"] == print, "{print}");
    }
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn each_prompt_streams_the_logprobs_of_its_own_completion() {
    let app = gateway().await;
    let mut request = json!({"model": "smol", "prompt": ["Once upon", "The sky is"], "n": 2,
        "echo": false, "logprobs": 1, "max_tokens": 8, "seed": 4});
    let whole = app.post("/v1/completions", &request).await;
    request["stream"] = json!(true);
    let sse = crate::rig::app::Sse::of(app.send("/v1/completions", &request).await).await;
    let offsets = |choice: &Value| choice["logprobs"]["text_offset"].as_array().cloned();
    for (index, (tokens, text, _)) in told(&sse.chunks, 4).iter().enumerate() {
        let choice = &whole.json["choices"][index];
        assert_eq!(&json!(tokens), &choice["logprobs"]["tokens"], "{text}");
        assert_eq!(&json!(text), &choice["text"]);
        let chunks = sse.chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap());
        let streamed = chunks.filter(|choice| choice["index"] == index).filter_map(offsets);
        assert_eq!(streamed.flatten().collect::<Vec<_>>(), offsets(choice).unwrap());
    }
}
