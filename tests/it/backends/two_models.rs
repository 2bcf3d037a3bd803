//! Two different models from one gateway: SmolLM2, and the base model Gemma 3, which comes in four
//! Python packages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::rig::app::{TestApp, ask};
use crate::rig::local_models::{local_model, short, smol};

/// Pulled by the first test that needs it and kept for the next run.
static GEMMA: LazyLock<PathBuf> = LazyLock::new(|| {
    let name = "gemma-3-270m-base";
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pulled = Command::new(env!("CARGO_BIN_EXE_wattgate"))
        .args(["models", "pull", name])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(pulled.status.success(), "{}", String::from_utf8_lossy(&pulled.stderr));
    let source = &wattgate::models::known(name).unwrap().source;
    wattgate::models::resolve(source, &root.join("models"))
});

fn raw(model: &str, prompt: &str, max_tokens: u32) -> Value {
    json!({"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "logprobs": 2})
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a model: `make test` pulls it"]
async fn two_models_answer_concurrently() {
    // No host cache: its maximum size counts from the beginning.
    let gemma = local_model("gemma", &GEMMA, "slots = 2\nhost_cache_mib = 0");
    let app = TestApp::start(&(smol("host_cache_mib = 0") + &gemma)).await;
    app.until_loaded("smol").await;
    app.until_loaded("gemma").await;
    let (chat_request, raw_request) =
        (short("smol", "Who wrote Hamlet?"), raw("gemma", "The capital of France is", 8));
    let (chat, continued) =
        tokio::join!(app.chat(&chat_request), app.post("/v1/completions", &raw_request));
    assert!(chat.content().contains("Shakespeare"), "{}", chat.text);
    let text = continued.json["choices"][0]["text"].as_str().unwrap();
    assert!(text.contains("France"), "{}", continued.text);
    // Gemma's tokeniser puts its beginning-of-sequence token first.
    assert_eq!(continued.json["usage"]["prompt_tokens"], 6);
    for model in ["smol", "gemma"] {
        assert_eq!(app.get(&format!("/v1/models/{model}")).await.json["state"], "loaded");
    }

    let named = app.chat(&ask("gemma", "Who wrote Hamlet?")).await;
    assert_eq!(named.error(), (400, "invalid_request_error", "unsupported_request"));
    assert!(named.text.contains("no chat template") && named.text.contains("/v1/completions"));
    let auto = app.chat(&short("auto", "Who wrote Hamlet?")).await;
    assert_eq!(auto.receipt()["model"], "smol");
    // The estimate is an upper bound: it includes the embeddings of unused tokens, which are pages
    // of the mapped file that were never read: most of Gemma.
    for (model, most) in [("smol", 1.25), ("gemma", 2.0)] {
        let memory = app.get(&format!("/v1/models/{model}")).await.json["memory"].clone();
        let counted = memory["budgeted_bytes"].as_f64().unwrap();
        let taken = memory["resident_bytes"].as_f64().unwrap();
        assert!(taken <= counted && counted <= most * taken, "{model}: {memory}");
    }
    let candidates = auto.receipt()["candidates"].as_array().unwrap().clone();
    let gemma = candidates.iter().find(|candidate| candidate["model"] == "gemma").unwrap();
    assert_eq!(gemma["excluded"], "no_chat_template");
    app.stop().await;
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_configured_template_makes_a_base_model_chat() {
    let chatml = local_model("gemma", &GEMMA, "slots = 1\nchat_template = \"chatml\"");
    let app = TestApp::start(&chatml).await;
    app.until_loaded("gemma").await;
    assert_eq!(app.chat(&short("gemma", "Hello")).await.status, 200);
    app.stop().await;
}

/// Tokens of an answer, and for each the distance of the two most probable ones in logits.
async fn answer(app: &TestApp, prompt: &str) -> (Vec<String>, Vec<f64>) {
    let reply = app.post("/v1/completions", &raw("gemma", prompt, 24)).await;
    let logprobs = &reply.json["choices"][0]["logprobs"];
    let tokens = logprobs["tokens"].as_array().unwrap().iter();
    let tops = logprobs["top_logprobs"].as_array().unwrap().iter();
    let gap = |top: &Value| {
        let mut ranked: Vec<f64> =
            top.as_object().unwrap().values().map(|logprob| logprob.as_f64().unwrap()).collect();
        ranked.sort_by(f64::total_cmp);
        ranked.pop().unwrap() - ranked.pop().unwrap()
    };
    (tokens.map(|token| token.as_str().unwrap().to_owned()).collect(), tops.map(gap).collect())
}

/// Gemma's sliding-window attention and its kernels guarantee less than SmolLM2's
/// (`batch_invariance`): in a batch the same sums may be added in another order. That may decide
/// only between two tokens that are nearly tied.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a model: `make test` pulls it"]
async fn batched_greedy_answers_differ_from_single_ones_only_at_near_ties() {
    const NEAR_TIE: f64 = 0.3;
    let prompts = [
        "The capital of France is",
        "Once upon a time there was a",
        "To bake bread you need",
        "The three largest planets are",
    ];
    let app = TestApp::start(&local_model("gemma", &GEMMA, "slots = 4\nhost_cache_mib = 0")).await;
    app.until_loaded("gemma").await;
    let mut alone = Vec::new();
    for prompt in prompts {
        alone.push(answer(&app, prompt).await);
    }
    let together = join_all(prompts.iter().map(|prompt| answer(&app, prompt))).await;
    for ((alone, gaps), (together, _)) in alone.iter().zip(&together) {
        assert_eq!(alone.len(), gaps.len());
        let parted = alone.iter().zip(together).position(|(one, other)| one != other);
        if let Some(place) = parted {
            assert!(
                gaps[place] < NEAR_TIE,
                "{} apart at {place}: {alone:?} {together:?}",
                gaps[place]
            );
        }
    }
    app.stop().await;
}
