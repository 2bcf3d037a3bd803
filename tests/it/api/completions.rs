//! `POST /v1/completions`: raw prompts to a local model and to an upstream, and conversations that
//! are too long.

use serde_json::{Value, json};

use crate::rig::app::{Sse, TestApp, ask, cloud_model};
use crate::rig::local_models::{fake_smol, smol};
use crate::rig::mock_upstream::{MockUpstream, Mode};

fn prompt(model: &str, prompt: impl Into<Value>) -> Value {
    json!({"model": model, "prompt": prompt.into(), "temperature": 0, "max_tokens": 12})
}

async fn gateway() -> TestApp {
    let app = TestApp::start(&smol("")).await;
    app.until_loaded("smol").await;
    app
}

/// As [`gateway`], where the model's words do not matter.
async fn fake_gateway() -> TestApp {
    let app = TestApp::start_fake(&fake_smol("")).await;
    app.until_loaded("smol").await;
    app
}

/// A prompt whose fake answer is longer than any limit here.
const COUNT: &str = "Count from one to nine";

const FRANCE: &str = "The capital of France is";

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_raw_prompt_is_continued_metered_and_echoed_on_demand() {
    let app = gateway().await;
    let reply = app.post("/v1/completions", &prompt("auto", FRANCE)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let text = reply.json["choices"][0]["text"].as_str().unwrap();
    assert!(text.starts_with(" Paris"), "no template stands between: {text:?}");
    assert_eq!(reply.json["object"], "text_completion");
    assert_eq!(reply.json["choices"][0]["finish_reason"], "length");
    // Five words, five tokens: nothing was added to the prompt.
    assert_eq!(reply.json["usage"]["prompt_tokens"], 5);
    assert_eq!(reply.json["usage"]["completion_tokens"], 12);
    assert_eq!(reply.receipt()["route"], "local");
    let id = reply.json["id"].as_str().unwrap();
    assert!(id.starts_with("cmpl-"));
    let record = app.settled(id).await;
    assert!(record["energy"]["joules"].as_f64() > Some(0.0), "{record}");
    let mut echo = prompt("smol", FRANCE);
    echo["echo"] = json!(true);
    let echoed = app.post("/v1/completions", &echo).await;
    assert_eq!(echoed.json["choices"][0]["text"], format!("{FRANCE}{text}"));
}

#[tokio::test]
async fn a_streamed_completion_equals_the_whole_one() {
    let app = fake_gateway().await;
    let mut request = prompt("smol", COUNT);
    let whole = app.post("/v1/completions", &request).await;
    request["stream"] = json!(true);
    request["echo"] = json!(true);
    request["stream_options"] = json!({"include_usage": true});
    let sse = Sse::of(app.send("/v1/completions", &request).await).await;
    assert!(sse.done);
    let texts = sse.chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str());
    let text: String = texts.collect();
    assert_eq!(text, format!("{COUNT}{}", whole.json["choices"][0]["text"].as_str().unwrap()));
    assert!(sse.chunks.iter().all(|chunk| chunk["object"] == "text_completion"));
    let [.., finishing, last] = sse.chunks.as_slice() else { panic!("{sse:?}") };
    assert_eq!(finishing["choices"][0]["finish_reason"], "length");
    assert_eq!((&last["choices"], &last["usage"]["prompt_tokens"]), (&json!([]), &json!(5)));
    assert_eq!(sse.receipt()["model"], "smol");
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn token_ids_are_accepted_as_prompt_and_unknown_ones_refused() {
    let app = gateway().await;
    let spoken = app.post("/v1/completions", &prompt("smol", "The")).await;
    // "The" is token 504 of SmolLM2's vocabulary.
    let tokens = app.post("/v1/completions", &prompt("smol", json!([504]))).await;
    assert_eq!(tokens.json["choices"], spoken.json["choices"], "{}", tokens.text);
    let unknown = app.post("/v1/completions", &prompt("smol", json!([504, 4_000_000]))).await;
    assert_eq!(unknown.status, 400);
    assert!(unknown.text.contains("4000000") && unknown.text.contains("49152"), "{}", unknown.text);
    assert_eq!(unknown.json["error"]["param"], "prompt");
    assert_eq!(app.post("/v1/completions", &prompt("smol", "Hi")).await.status, 200);
}

#[tokio::test]
async fn unsupported_completion_fields_are_refused_by_name() {
    let app = fake_gateway().await;
    for (param, value) in [
        ("suffix", json!("the end")),
        ("logprobs", json!(21)),
        ("n", json!(0)),
        ("n", json!(100)),
        ("best_of", json!(2)),
        ("prompt", json!(vec!["Hi"; 100])),
        ("temperature", json!(3)),
        ("stop", json!(vec!["a"; 17])),
        ("prompt", json!(7)),
        ("prompt", json!("word ".repeat(1500))),
    ] {
        let mut request = prompt("smol", "Hi");
        request[param] = value;
        let reply = app.post("/v1/completions", &request).await;
        assert_eq!(reply.status, 400, "{param}: {}", reply.text);
        let error = &reply.json["error"];
        let named = error["param"] == param || error["code"] == "unsupported_request";
        assert!(named && error["type"] == "invalid_request_error", "{param}: {error}");
    }
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn several_prompts_give_the_answers_of_each_alone_and_one_receipt() {
    let app = gateway().await;
    let prompts = [FRANCE, "Two plus two is"];
    let ask = |prompt: Value| json!({"model": "smol", "prompt": prompt, "n": 2, "temperature": 0.8, "seed": 7, "max_tokens": 6});
    let mut alone = Vec::new();
    let mut prompt_tokens = 0;
    for prompt in prompts {
        let reply = app.post("/v1/completions", &ask(json!(prompt))).await;
        let choices = reply.json["choices"].as_array().unwrap().clone();
        assert_eq!(choices.len(), 2);
        assert_ne!(choices[0]["text"], choices[1]["text"], "each choice has its own seed");
        alone.extend(choices.iter().map(|choice| choice["text"].as_str().unwrap().to_owned()));
        prompt_tokens += reply.json["usage"]["prompt_tokens"].as_u64().unwrap();
    }
    let mut request = ask(json!(prompts));
    let reply = app.post("/v1/completions", &request).await;
    let choices = reply.json["choices"].as_array().unwrap();
    let told: Vec<_> = choices
        .iter()
        .map(|choice| (choice["index"].as_u64().unwrap(), choice["text"].as_str().unwrap()))
        .collect();
    let expected: Vec<_> = (0..).zip(alone.iter().map(String::as_str)).collect();
    assert_eq!(told, expected);
    let usage = &reply.json["usage"];
    assert_eq!(usage["prompt_tokens"], prompt_tokens);
    assert!(usage["completion_tokens"].as_u64() > Some(12), "{usage}");
    assert_eq!(reply.receipt()["attempts"].as_array().unwrap().len(), 1);
    let record = app.settled(reply.receipt()["request_id"].as_str().unwrap()).await;
    assert!(record["energy"]["joules"].as_f64() > Some(0.0), "{record}");

    request["stream"] = json!(true);
    request["echo"] = json!(true);
    let sse = Sse::of(app.send("/v1/completions", &request).await).await;
    let mut streamed = vec![String::new(); 4];
    let mut ends = 0;
    for choice in sse.chunks.iter().filter_map(|chunk| chunk["choices"].get(0)) {
        let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
        streamed[index].push_str(choice["text"].as_str().unwrap());
        ends += usize::from(choice["finish_reason"].is_string());
    }
    let echoed = |(index, text): (usize, &String)| format!("{}{text}", prompts[index / 2]);
    assert_eq!(streamed, alone.iter().enumerate().map(echoed).collect::<Vec<_>>());
    assert_eq!((ends, sse.done), (4, true));
    assert_eq!(app.until_logged(4).await.len(), 4, "one record a request");
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn completion_logprobs_use_the_legacy_format_and_penalties_and_bias_apply() {
    let app = gateway().await;
    let mut request = prompt("smol", FRANCE);
    request["logprobs"] = json!(3);
    let reply = app.post("/v1/completions", &request).await;
    let choice = &reply.json["choices"][0];
    let (text, logprobs) = (choice["text"].as_str().unwrap(), &choice["logprobs"]);
    let tokens: Vec<&str> = logprobs["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token.as_str().unwrap())
        .collect();
    assert_eq!((tokens.concat().as_str(), tokens.len()), (text, 12));
    let mut offset = 0;
    for (place, token) in tokens.iter().enumerate() {
        assert_eq!(logprobs["text_offset"][place], offset);
        offset += token.chars().count();
        let tops = logprobs["top_logprobs"][place].as_object().unwrap();
        assert_eq!(tops.len(), 3, "greedy: the chosen one is among them");
        let best = tops.values().filter_map(Value::as_f64).fold(f64::MIN, f64::max);
        assert!((logprobs["token_logprobs"][place].as_f64().unwrap() - best).abs() < 1e-6);
    }
    // Streamed, the same lists come in pieces.
    request["stream"] = json!(true);
    let sse = Sse::of(app.send("/v1/completions", &request).await).await;
    let lists = |field: &str| -> Vec<Value> {
        let chunks =
            sse.chunks.iter().filter_map(|c| c["choices"][0]["logprobs"][field].as_array());
        chunks.flatten().cloned().collect()
    };
    assert_eq!(json!(lists("tokens")), logprobs["tokens"]);
    assert_eq!(json!(lists("text_offset")), logprobs["text_offset"]);

    let mut looping = prompt("smol", "la la la la la la la la");
    looping["max_tokens"] = json!(24);
    let plain = app.post("/v1/completions", &looping).await;
    looping["frequency_penalty"] = json!(2);
    let penalised = app.post("/v1/completions", &looping).await;
    let text_of = |reply: &crate::rig::app::Reply| {
        reply.json["choices"][0]["text"].as_str().unwrap().to_owned()
    };
    assert_ne!(text_of(&penalised), text_of(&plain));
    let mut biased = prompt("smol", FRANCE);
    // " Paris" is token 7042 of SmolLM2's vocabulary.
    biased["logit_bias"] = json!({"7042": -100});
    let biased = app.post("/v1/completions", &biased).await;
    assert!(!text_of(&biased).starts_with(" Paris"), "{}", biased.text);
}

#[tokio::test]
async fn an_upstream_gets_prompts_at_its_completions_endpoint() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&cloud_model("cloud", 3.0, &upstream)).await;
    let mut request = prompt("auto", "one two");
    request["x_vendor"] = json!([1]);
    let reply = app.post("/v1/completions", &request).await;
    assert_eq!(
        reply.json["choices"][0]["text"],
        MockUpstream::reply_to("one two"),
        "{}",
        reply.text
    );
    assert_eq!(reply.receipt()["route"], "cloud");
    assert!(reply.receipt()["energy"]["joules"].as_f64() > Some(0.0), "{}", reply.text);
    request["stream"] = json!(true);
    let sse = Sse::of(app.send("/v1/completions", &request).await).await;
    let texts = sse.chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str());
    assert_eq!(texts.collect::<String>(), MockUpstream::reply_to("one two"));
    assert!(sse.done && sse.receipt()["model"] == "cloud");
    let received = upstream.requests();
    assert!(received.iter().all(|request| request.path == "/v1/completions"));
    assert_eq!(received[0].body["model"], "cloud-upstream");
    assert_eq!(received[0].body["x_vendor"], json!([1]));
}

#[tokio::test]
async fn an_upstream_without_completions_is_excluded_for_prompts_and_still_chats() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start_fake(&(fake_smol("") + &cloud_model("cloud", 4.0, &upstream))).await;
    app.until_loaded("smol").await;
    upstream.respond_with(Mode::Status(404));
    // More often than would open the circuit breaker.
    for _ in 0..6 {
        let reply = app.post("/v1/completions", &prompt("auto", FRANCE)).await;
        assert_eq!(reply.receipt()["model"], "smol", "{}", reply.text);
    }
    let named = app.post("/v1/completions", &prompt("cloud", FRANCE)).await;
    assert_eq!(named.error(), (400, "invalid_request_error", "unsupported_endpoint"));
    upstream.respond_with(Mode::Answer);
    assert_eq!(app.chat(&ask("cloud", "hello")).await.status, 200);
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn an_empty_prompt_begins_a_document_and_no_tokens_are_an_answer() {
    let app = gateway().await;
    let post = |request: Value| {
        let app = &app;
        async move { app.post("/v1/completions", &request).await }
    };
    let begun = post(prompt("smol", "")).await;
    assert_eq!(begun.status, 200, "{}", begun.text);
    assert_eq!(begun.json["usage"]["prompt_tokens"], 1, "the token that begins a document");
    assert_eq!(begun.json["usage"]["completion_tokens"], 12);
    for (echo, text) in [(false, ""), (true, FRANCE)] {
        let mut request = prompt("smol", FRANCE);
        (request["max_tokens"], request["echo"]) = (json!(0), json!(echo));
        let none = post(request.clone()).await;
        assert_eq!(none.status, 200, "{}", none.text);
        assert_eq!(none.json["choices"][0]["text"], text);
        assert_eq!(none.json["choices"][0]["finish_reason"], "length");
        assert_eq!(none.json["usage"]["prompt_tokens"], 5);
        assert_eq!(none.json["usage"]["completion_tokens"], 0);
        request["stream"] = json!(true);
        let sse = Sse::of(app.send("/v1/completions", &request).await).await;
        assert!(sse.done);
        let texts = sse.chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str());
        assert_eq!(texts.collect::<String>(), text);
    }
    let mut long = prompt("smol", "a b c d ".repeat(300));
    long["max_tokens"] = json!(0);
    assert_eq!(post(long).await.error().2, "context_length_exceeded");
    let scored =
        json!({"model": "smol", "prompt": FRANCE, "max_tokens": 0, "echo": true, "logprobs": 1});
    let refused = post(scored).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
}

#[tokio::test]
async fn a_batch_is_checked_whole_before_its_first_word() {
    let app = fake_gateway().await;
    let long = "a b c d ".repeat(300);
    for _ in 0..12 {
        let mut request = prompt("smol", json!(["Once upon", long, "The sky is"]));
        request["stream"] = json!(true);
        let reply = app.post("/v1/completions", &request).await;
        assert_eq!(reply.error().2, "context_length_exceeded", "{}", reply.text);
    }
    // More prompts than slots: the last ones wait, and the first ones stream.
    let mut request = prompt("smol", json!(vec!["Once upon"; 8]));
    request["stream"] = json!(true);
    let sse = Sse::of(app.send("/v1/completions", &request).await).await;
    assert!(sse.done, "{:?}", sse.chunks);
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_prompt_is_too_long_by_its_tokens_and_not_by_its_bytes() {
    let app = gateway().await;
    for text in [
        " ".repeat(40_000),
        ("-".repeat(78) + "\n").repeat(100),
        format!("| {:<96} |\n", "name").repeat(60),
        "=".repeat(20_000),
    ] {
        let mut request = prompt("smol", text);
        request["max_tokens"] = json!(1);
        let reply = app.post("/v1/completions", &request).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let chat = json!({"model": "smol", "messages": [{"role": "user", "content": request["prompt"]}], "max_tokens": 1});
        assert_eq!(app.chat(&chat).await.status, 200);
        let route = app.post("/v1/route", &chat).await;
        assert!(!route.text.contains("context_too_short"), "{}", route.text);
    }
    let long =
        json!({"model": "smol", "messages": [{"role": "user", "content": "word ".repeat(3000)}]});
    assert!(app.post("/v1/route", &long).await.text.contains("context_too_short"));
    // Some are refused by the router, some by the engine, which does not tokenise them whole.
    for text in ["word ".repeat(600_000), "abcdefgh".repeat(350_000), "abcdefgh".repeat(30_000)] {
        let begun = std::time::Instant::now();
        let reply = app.post("/v1/completions", &prompt("smol", text)).await;
        assert_eq!(reply.error().2, "context_length_exceeded", "{}", reply.text);
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    }
}

/// A conversation of about 60 tokens a turn pair, its turns numbered.
fn long_conversation(pairs: usize) -> Value {
    let mut messages = vec![json!({"role": "system", "content": "Answer with one word."})];
    for number in 0..pairs {
        let question = format!("Question {number}: {}?", "how many are there of them ".repeat(6));
        messages.push(json!({"role": "user", "content": question}));
        messages.push(json!({"role": "assistant", "content": "Twelve of them, I believe."}));
    }
    messages.push(json!({"role": "user", "content": "What is the capital of France?"}));
    json!({"model": "smol", "messages": messages, "max_tokens": 16, "temperature": 0})
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn the_oldest_turns_are_dropped_only_if_configured() {
    // A small context, so that little has to be read.
    let config = |extra: &str| {
        let path = crate::rig::engine::model_path();
        let source = format!("source = \"file:{}\"", path.display());
        format!("[models.smol.llama]\n{source}\ncontext_tokens = 256\n{extra}\n")
    };
    let refusing = TestApp::start(&config("")).await;
    refusing.until_loaded("smol").await;
    let refused = refusing.chat(&long_conversation(8)).await;
    assert_eq!(refused.error().2, "context_length_exceeded", "{}", refused.text);

    let app = TestApp::start(&config("overflow = \"drop_oldest_turns\"")).await;
    app.until_loaded("smol").await;
    let whole = app.chat(&long_conversation(2)).await;
    assert_eq!(whole.receipt()["attempts"][0].get("dropped_turns"), None, "{}", whole.text);
    for pairs in [8, 100] {
        let reply = app.chat(&long_conversation(pairs)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let dropped = reply.receipt()["attempts"][0]["dropped_turns"].as_u64().unwrap();
        assert!(dropped.is_multiple_of(2) && dropped < 2 * pairs as u64, "{dropped}");
        let prompt_tokens = reply.json["usage"]["prompt_tokens"].as_u64().unwrap();
        assert!((150..=240).contains(&prompt_tokens), "no more than needed: {prompt_tokens}");
        let id = reply.receipt()["request_id"].as_str().unwrap();
        assert_eq!(app.settled(id).await["attempts"][0]["dropped_turns"], dropped);
    }
    // The last question alone is too long.
    let reply = app.chat(&ask("smol", &"a b c d ".repeat(300))).await;
    assert_eq!(reply.error().2, "context_length_exceeded", "{}", reply.text);
}
