//! `POST /v1/completions`: raw prompts to a local model and to an upstream, and conversations that are too long.

use serde_json::{Value, json};

use crate::app::{Sse, TestApp, ask, cloud_model};
use crate::local::smol;
use crate::stand_in::{Mode, StandIn};

fn prompt(model: &str, prompt: impl Into<Value>) -> Value {
    json!({"model": model, "prompt": prompt.into(), "temperature": 0, "max_tokens": 12})
}

async fn gateway() -> TestApp {
    let app = TestApp::start(&smol("")).await;
    app.until_loaded("smol").await;
    app
}

const FRANCE: &str = "The capital of France is";

#[tokio::test]
async fn a_raw_prompt_is_continued_metered_and_repeated_on_demand() {
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
async fn a_stream_says_the_same_in_chunks() {
    let app = gateway().await;
    let mut request = prompt("smol", FRANCE);
    let whole = app.post("/v1/completions", &request).await;
    request["stream"] = json!(true);
    request["echo"] = json!(true);
    request["stream_options"] = json!({"include_usage": true});
    let sse = Sse::of(app.send("/v1/completions", &request).await).await;
    assert!(sse.done);
    let texts = sse.chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str());
    let text: String = texts.collect();
    assert_eq!(text, format!("{FRANCE}{}", whole.json["choices"][0]["text"].as_str().unwrap()));
    assert!(sse.chunks.iter().all(|chunk| chunk["object"] == "text_completion"));
    let [.., finishing, last] = sse.chunks.as_slice() else { panic!("{sse:?}") };
    assert_eq!(finishing["choices"][0]["finish_reason"], "length");
    assert_eq!((&last["choices"], &last["usage"]["prompt_tokens"]), (&json!([]), &json!(5)));
    assert_eq!(sse.receipt()["model"], "smol");
}

#[tokio::test]
async fn tokens_are_a_prompt_too_and_unknown_ones_are_refused() {
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
async fn what_cannot_be_done_is_refused_by_name() {
    let app = gateway().await;
    for (param, value) in [
        ("suffix", json!("the end")),
        ("logprobs", json!(2)),
        ("n", json!(2)),
        ("max_tokens", json!(0)),
        ("temperature", json!(3)),
        ("stop", json!(["a", "b", "c", "d", "e"])),
        ("prompt", json!([])),
        ("prompt", json!(7)),
        ("prompt", json!("")),
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
async fn an_upstream_continues_prompts_at_its_own_address() {
    let stand_in = StandIn::start().await;
    let app = TestApp::start(&cloud_model("cloud", 3.0, &stand_in)).await;
    let mut request = prompt("auto", "one two");
    request["x_vendor"] = json!([1]);
    let reply = app.post("/v1/completions", &request).await;
    assert_eq!(reply.json["choices"][0]["text"], StandIn::reply_to("one two"), "{}", reply.text);
    assert_eq!(reply.receipt()["route"], "cloud");
    assert!(reply.receipt()["energy"]["joules"].as_f64() > Some(0.0), "{}", reply.text);
    request["stream"] = json!(true);
    let sse = Sse::of(app.send("/v1/completions", &request).await).await;
    let texts = sse.chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str());
    assert_eq!(texts.collect::<String>(), StandIn::reply_to("one two"));
    assert!(sse.done && sse.receipt()["model"] == "cloud");
    let received = stand_in.requests();
    assert!(received.iter().all(|request| request.path == "/v1/completions"));
    assert_eq!(received[0].body["model"], "cloud-upstream");
    assert_eq!(received[0].body["x_vendor"], json!([1]));
}

#[tokio::test]
async fn an_upstream_that_only_chats_leaves_prompts_to_others_and_goes_on_chatting() {
    let stand_in = StandIn::start().await;
    let app = TestApp::start(&(smol("") + &cloud_model("cloud", 4.0, &stand_in))).await;
    app.until_loaded("smol").await;
    stand_in.respond_with(Mode::Status(404));
    // More often than the circuit breaker would bear from an upstream at fault.
    for _ in 0..6 {
        let reply = app.post("/v1/completions", &prompt("auto", FRANCE)).await;
        assert_eq!(reply.receipt()["model"], "smol", "{}", reply.text);
    }
    let named = app.post("/v1/completions", &prompt("cloud", FRANCE)).await;
    assert_eq!(named.error(), (400, "invalid_request_error", "unsupported_endpoint"));
    stand_in.respond_with(Mode::Answer);
    assert_eq!(app.chat(&ask("cloud", "hello")).await.status, 200);
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
async fn the_oldest_turns_are_dropped_only_where_the_config_says_so() {
    // A small context, so that little has to be read.
    let config = |extra: &str| {
        let path = crate::engine::model_path();
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
