//! `POST /v1/embeddings` with the real `MiniLM`, and at an upstream.

use std::path::{Path, PathBuf};

use futures::StreamExt;
use serde_json::{Value, json};

use crate::rig::app::{TestApp, ask, cloud_model};
use crate::rig::fake_engine::FAKE;
use crate::rig::local_models::{fake_smol, local_model};
use crate::rig::mock_upstream::MockUpstream;

/// all-MiniLM-L6-v2: `scripts/setup test` makes it.
fn minilm_path() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/test/all-MiniLM-L6-v2.F32.gguf");
    assert!(path.is_file(), "{} is not here: run `make test`, which makes it", path.display());
    path
}

fn minilm() -> String {
    format!(
        "[models.minilm.llama]\nsource = \"file:{}\"\nembedding = true\n",
        minilm_path().display()
    )
}

/// As [`minilm`], with vectors that mean nothing.
fn fake_minilm() -> String {
    local_model("minilm", FAKE.path(), "embedding = true")
}

async fn gateway() -> TestApp {
    let app = TestApp::start(&minilm()).await;
    app.until_loaded("minilm").await;
    app
}

fn embed(input: impl Into<Value>) -> Value {
    json!({"model": "minilm", "input": input.into()})
}

async fn vectors(app: &TestApp, request: &Value) -> Vec<Vec<f64>> {
    let reply = app.post("/v1/embeddings", request).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let data = reply.json["data"].as_array().unwrap();
    for (index, item) in data.iter().enumerate() {
        assert_eq!((&item["object"], &item["index"]), (&json!("embedding"), &json!(index)));
    }
    data.iter().map(|item| serde_json::from_value(item["embedding"].clone()).unwrap()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn similar_texts_have_similar_vectors_and_the_joules_are_metered() {
    let app = gateway().await;
    let inputs = ["A man is eating food.", "Somebody eats a meal.", "The stock market fell."];
    let reply = app.post("/v1/embeddings", &embed(json!(inputs))).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!((&reply.json["object"], &reply.json["model"]), (&json!("list"), &json!("minilm")));
    // Six and five and five words with their full stops, each between [CLS] and [SEP].
    assert_eq!(reply.json["usage"], json!({"prompt_tokens": 22, "total_tokens": 22}));
    let receipt = reply.receipt();
    assert_eq!((&receipt["route"], &receipt["model"]), (&json!("local"), &json!("minilm")));
    let record = app.settled(receipt["request_id"].as_str().unwrap()).await;
    assert!(record["energy"]["joules"].as_f64() > Some(0.0), "{record}");

    let vectors = vectors(&app, &embed(json!(inputs))).await;
    for vector in &vectors {
        assert!((dot(vector, vector) - 1.0).abs() < 1e-5 && vector.len() == 384);
    }
    let (like, unlike) = (dot(&vectors[0], &vectors[1]), dot(&vectors[0], &vectors[2]));
    assert!(like > 0.6 && unlike < 0.2, "{like} {unlike}");
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_batch_of_inputs_gives_the_vectors_of_each_alone() {
    let app = gateway().await;
    let inputs: Vec<String> =
        (0..100).map(|at| format!("Text {at}: {}", "and so on ".repeat(at % 40))).collect();
    let together = vectors(&app, &embed(json!(inputs))).await;
    assert_eq!(together.len(), inputs.len());
    let alone = inputs.iter().map(|input| {
        let app = &app;
        async move { vectors(app, &embed(input.as_str())).await.remove(0) }
    });
    let alone: Vec<Vec<f64>> = futures::stream::iter(alone).buffered(16).collect().await;
    for (number, (a, b)) in together.iter().zip(&alone).enumerate() {
        assert!(difference(a, b) < 3e-4, "text {number}: {}", difference(a, b));
    }
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn base64_and_fewer_dimensions_keep_the_direction() {
    let app = gateway().await;
    let whole = vectors(&app, &embed("hello")).await.remove(0);
    let mut request = embed("hello");
    request["dimensions"] = json!(64);
    let short = vectors(&app, &request).await.remove(0);
    let length = dot(&whole[..64], &whole[..64]).sqrt();
    let expected: Vec<f64> = whole[..64].iter().map(|x| x / length).collect();
    assert!(difference(&short, &expected) < 1e-6);
    request["encoding_format"] = json!("base64");
    let reply = app.post("/v1/embeddings", &request).await;
    let text = reply.json["data"][0]["embedding"].as_str().unwrap();
    // 64 floats of 4 bytes, 4 letters for every 3 bytes.
    assert_eq!(text.len(), (64 * 4_usize).div_ceil(3) * 4, "{text}");
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn token_ids_give_the_vector_of_their_text() {
    let app = gateway().await;
    let text = vectors(&app, &embed("hello")).await;
    // [CLS] hello [SEP]
    assert_eq!(vectors(&app, &embed(json!([101, 7592, 102]))).await, text);
    assert_eq!(vectors(&app, &embed(json!([[101, 7592, 102]]))).await, text);
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn bad_input_is_refused_by_name_and_leaves_other_requests_alone() {
    let app = gateway().await;
    for (field, value, code) in [
        ("input", json!(""), "invalid_value"),
        ("input", json!(["fine", ""]), "invalid_value"),
        ("input", json!([]), "invalid_value"),
        ("input", json!({"a": 1}), "invalid_value"),
        ("input", json!([101, 900_000]), ""),
        ("input", json!(vec!["a"; 2049]), "invalid_value"),
        ("input", json!(["short", "word ".repeat(600)]), "context_length_exceeded"),
        ("dimensions", json!(0), "invalid_value"),
        ("dimensions", json!(385), ""),
        ("encoding_format", json!("hex"), "invalid_value"),
        ("model", json!("nobody"), "model_not_found"),
    ] {
        let mut request = embed("fine");
        request[field] = value;
        let reply = app.post("/v1/embeddings", &request).await;
        let error = &reply.json["error"];
        assert!([400, 404].contains(&reply.status), "{field}: {}", reply.text);
        assert_eq!((&error["param"], error["code"].as_str().unwrap_or("")), (&json!(field), code));
        let names_limit = error["message"].as_str().unwrap().contains("512");
        assert_eq!(names_limit, code == "context_length_exceeded", "{}", reply.text);
    }
    assert_eq!(vectors(&app, &embed("fine")).await.len(), 1);
}

#[tokio::test]
async fn chat_and_embedding_requests_go_to_models_of_their_kind() {
    let app = TestApp::start_fake(&(fake_smol("") + &fake_minilm())).await;
    app.until_loaded("smol").await;
    app.until_loaded("minilm").await;
    let request = |model: &str| json!({"model": model, "input": "hello"});
    let chat_model = app.post("/v1/embeddings", &request("smol")).await;
    assert_eq!(chat_model.error(), (400, "invalid_request_error", "no_embedding_model"));
    assert!(chat_model.text.contains("minilm"), "{}", chat_model.text);
    let only_one = app.post("/v1/embeddings", &request("auto")).await;
    assert_eq!(only_one.receipt()["model"], "minilm", "{}", only_one.text);
    let chat = app.chat(&ask("auto", "hello")).await;
    assert_eq!(chat.receipt()["model"], "smol", "{}", chat.text);
    let wrong = app.chat(&ask("minilm", "hello")).await;
    assert_eq!(wrong.error(), (400, "invalid_request_error", "unsupported_request"));
    let cards = app.get("/v1/models/minilm").await;
    assert_eq!(cards.json["endpoints"], json!(["/v1/embeddings"]));
    let card = app.get("/v1/models/smol").await;
    assert_eq!(card.json["endpoints"], json!(["/v1/chat/completions", "/v1/completions"]));
    assert_eq!(card.json["chat_template"], true);
}

#[tokio::test]
async fn upstream_embeddings_pass_through_and_auto_is_refused_with_two_models() {
    let upstream = MockUpstream::start().await;
    let cloud = cloud_model("far", 1.0, &upstream) + "embedding = true\n";
    let app = TestApp::start(&cloud).await;
    let reply = app.post("/v1/embeddings", &json!({"model": "auto", "input": ["a", "b"]})).await;
    assert_eq!(reply.json["data"][0]["embedding"], json!([0.6, 0.8]), "{}", reply.text);
    assert_eq!(reply.receipt()["route"], "cloud");
    let records = app.until_logged(1).await;
    assert_eq!(records[0].usage.unwrap().prompt_tokens, 5);
    let microdollars = records[0].dollars.unwrap().0 * 1e6;
    assert!((microdollars - 5.0).abs() < 1e-9, "five tokens at a dollar a million");
    assert_eq!(upstream.requests()[0].path, "/v1/embeddings");
    assert_eq!(upstream.requests()[0].body["model"], "far-upstream");

    let app = TestApp::start_fake(&(cloud + &fake_minilm())).await;
    let reply = app.post("/v1/embeddings", &json!({"model": "auto", "input": "a"})).await;
    assert_eq!(reply.error().2, "no_embedding_model");
    assert!(reply.text.contains("far, minilm"), "{}", reply.text);
}
