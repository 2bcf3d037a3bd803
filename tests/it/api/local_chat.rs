//! Local models behind the gateway: answers, streams, metering, and engines that die.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::rig::app::{PATIENCE, Sse, TestApp, ask, ask_streaming, cloud_model, eventually};
use crate::rig::fake_engine::FakeModel;
use crate::rig::local_models::{engine_pid, fake_smol, local_model, short, smol};
use crate::rig::mock_upstream::MockUpstream;

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_local_answer_is_metered() {
    let app = TestApp::start(&smol("")).await;
    app.until_loaded("smol").await;
    let reply = app.chat(&short("auto", "Who wrote Hamlet?")).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert!(reply.content().contains("Shakespeare"), "{}", reply.content());
    assert_eq!(reply.json["object"], "chat.completion");
    let usage = &reply.json["usage"];
    assert!(usage["prompt_tokens"].as_u64() > Some(10), "{usage}");
    assert!((1..=16).contains(&usage["completion_tokens"].as_u64().unwrap()), "{usage}");
    let receipt = reply.receipt();
    assert_eq!((&receipt["model"], &receipt["route"]), (&json!("smol"), &json!("local")));
    assert_eq!(receipt["energy"]["final"], false, "energy settles after the answer");
    let record = app.settled(receipt["request_id"].as_str().unwrap()).await;
    let energy = &record["energy"];
    assert!(energy["joules"].as_f64() > Some(0.0), "{energy}");
    assert!(energy["low"].as_f64() <= energy["joules"].as_f64(), "{energy}");
    assert!(["measured", "estimated"].contains(&energy["quality"].as_str().unwrap()), "{energy}");
}

#[tokio::test]
async fn a_local_stream_has_openai_format() {
    let app = TestApp::start_fake(&fake_smol("")).await;
    app.until_loaded("smol").await;
    let mut request = short("smol", "Who wrote Hamlet?");
    request["stream"] = json!(true);
    request["stream_options"] = json!({"include_usage": true});
    let sse = app.stream(&request).await;
    assert!(sse.done && sse.content().contains("Shakespeare"), "{sse:?}");
    assert_eq!(sse.chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let ids: HashSet<&str> = sse.chunks.iter().map(|chunk| chunk["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 1);
    let finishing = &sse.chunks[sse.chunks.len() - 2];
    assert!(finishing["choices"][0]["finish_reason"].is_string(), "{finishing}");
    assert_eq!(sse.chunks.last().unwrap()["choices"], json!([]));
    assert_eq!(sse.receipt()["route"], "local");
}

#[tokio::test]
async fn without_a_key_the_cloud_model_is_excluded_and_the_local_one_answers() {
    let upstream = MockUpstream::start().await;
    let cloud = cloud_model("cloud", 3.0, &upstream)
        + "api_key_env = \"WATTGATE_TEST_KEY_THAT_NOBODY_SETS\"\n";
    let app = TestApp::start_fake(&(fake_smol("") + &cloud)).await;
    app.until_loaded("smol").await;
    let reply = app.chat(&short("auto", "Prove that there are infinitely many primes.")).await;
    assert_eq!(reply.receipt()["model"], "smol", "{}", reply.text);
    assert_eq!(reply.receipt()["candidates"][1]["excluded"], "no_api_key");
}

#[tokio::test]
async fn a_hard_question_goes_to_the_cloud_unless_local_only() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start_fake(&(fake_smol("") + &cloud_model("cloud", 4.0, &upstream))).await;
    app.until_loaded("smol").await;
    let hard = short("auto", "Prove that every finite group of order p^2 is abelian.");
    assert_eq!(app.chat(&hard).await.receipt()["model"], "cloud");
    let request = app.request("/v1/chat/completions").header("x-wattgate-local-only", "true");
    let reply: Value = request.json(&hard).send().await.unwrap().json().await.unwrap();
    assert_eq!(reply["wattgate"]["model"], "smol");
    assert_eq!(reply["wattgate"]["candidates"][1]["excluded"], "local_only");
}

#[tokio::test]
async fn eight_streams_interleave_and_their_joules_add_up_exactly() {
    let slow = FakeModel::new("interleave", "step_ms = 20");
    let app = TestApp::start_fake(&local_model("smol", slow.path(), "")).await;
    app.until_loaded("smol").await;
    let prompts = ["rivers", "bridges", "bread", "stars", "trees", "ships", "maps", "clocks"];
    let streams = prompts.iter().map(|topic| {
        let app = &app;
        async move {
            let mut request =
                ask_streaming("smol", &format!("Tell me a long story about {topic}."));
            request["max_tokens"] = json!(48);
            let response = app.send("/v1/chat/completions", &request).await;
            let mut arrivals = Vec::new();
            let mut text = Vec::new();
            let mut bytes = response.bytes_stream();
            while let Some(piece) = bytes.next().await {
                arrivals.push(std::time::Instant::now());
                text.extend_from_slice(&piece.unwrap());
            }
            (arrivals, String::from_utf8(text).unwrap())
        }
    });
    let answers = futures::future::join_all(streams).await;
    let first_end = answers.iter().map(|(arrivals, _)| *arrivals.last().unwrap()).min().unwrap();
    for (arrivals, text) in &answers {
        assert!(text.contains("[DONE]"), "{text}");
        assert!(arrivals[0] < first_end, "every stream began before any had ended");
    }
    let mut attributed_joules = 0.0;
    for record in app.until_logged(prompts.len()).await {
        attributed_joules += record.receipt.energy.unwrap().joules.unwrap().0;
    }
    for device in app.energy().devices {
        let account = device.account;
        let parts = account.attributed
            + account.load
            + account.unattributed
            + account.idle_occupied
            + account.idle_empty;
        assert_eq!(parts, account.total, "{}", device.info.name);
        assert_eq!(device.conservation_error.0, 0, "{}", device.info.name);
    }
    let books = app.energy();
    let booked: f64 = books.devices.iter().map(|device| device.account.attributed.joules().0).sum();
    // Receipts are floats of the integer ledger: equal to a microjoule per request.
    assert!((booked - attributed_joules).abs() < 1e-5, "{booked} {attributed_joules}");
    let metrics = app.get("/metrics").await.text;
    let errors = metrics
        .lines()
        .filter(|line| line.starts_with("wattgate_energy_conservation_error_joules{"));
    for line in errors {
        assert!(line.ends_with(" 0.0"), "{line}");
    }
}

#[tokio::test]
async fn a_prompt_longer_than_every_context_is_refused_with_token_counts() {
    let app = TestApp::start_fake(&fake_smol("")).await;
    app.until_loaded("smol").await;
    let long = "word ".repeat(3000);
    for model in ["auto", "smol"] {
        let reply = app.chat(&short(model, &long)).await;
        assert_eq!(
            reply.error(),
            (400, "invalid_request_error", "context_length_exceeded"),
            "{}",
            reply.text
        );
    }
    // The router estimates roughly; the engine counts exactly.
    let reply = app.chat(&short("smol", &"a b c d ".repeat(300))).await;
    assert_eq!(reply.error().2, "context_length_exceeded", "{}", reply.text);
    assert!(reply.text.contains("1024"), "{}", reply.text);
    // With a cloud model that has the context, the cloud model answers.
    assert_eq!(app.chat(&short("smol", "hi")).await.status, 200, "the engine is undisturbed");
}

#[tokio::test]
async fn a_client_disconnect_frees_its_slot_and_counts_its_joules_as_wasted() {
    let app = TestApp::start_fake(&fake_smol("slots = 1")).await;
    app.until_loaded("smol").await;
    let mut request = ask_streaming("smol", "Write a very long story.");
    request["max_tokens"] = json!(900);
    let mut response = app.send("/v1/chat/completions", &request).await;
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    // The only slot is free again long before 900 tokens could have been written.
    let reply = tokio::time::timeout(PATIENCE, app.chat(&short("smol", "hi"))).await.unwrap();
    assert_eq!(reply.status, 200);
    let records = app.until_logged(2).await;
    let left = records.iter().find(|record| record.outcome.label() == "cancelled").unwrap();
    assert!(left.receipt.energy.unwrap().joules.unwrap().0 > 0.0);
    eventually(|| async {
        let metrics = app.get("/metrics").await.text;
        metrics.contains("purpose=\"wasted\"").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_killed_engine_breaks_only_its_own_streams_and_restarts() {
    let upstream = MockUpstream::start().await;
    let config = fake_smol("") + &cloud_model("cloud", 4.0, &upstream);
    let app = TestApp::start_fake(&config).await;
    app.until_loaded("smol").await;
    let mut request = ask_streaming("smol", "Write a very long story.");
    request["max_tokens"] = json!(900);
    let mut response = app.send("/v1/chat/completions", &request).await;
    assert!(response.chunk().await.unwrap().is_some());
    kill_process(engine_pid(&app, "smol").expect("the engine runs"), Signal::KILL).unwrap();
    let sse = Sse::of(response).await;
    assert!(!sse.done);
    assert_eq!(sse.chunks.last().unwrap()["error"]["code"], "engine_died");
    // Other requests continue.
    assert_eq!(app.chat(&ask("cloud", "hello")).await.status, 200);
    // The engine restarts.
    eventually(|| async { (app.chat(&short("smol", "hi")).await.status == 200).then_some(()) })
        .await;
    let metrics = app.get("/metrics").await.text;
    assert!(metrics.contains("wattgate_engine_restarts_total{model=\"smol\"} 1"), "{metrics}");
}

#[tokio::test]
async fn a_model_that_cannot_load_does_not_affect_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let corrupt = dir.path().join("corrupt.gguf");
    std::fs::write(&corrupt, b"GGUF\x03\0\0\0 and then nonsense").unwrap();
    let missing = dir.path().join("missing.gguf");
    let cases: [(&str, PathBuf); 2] = [("corrupt", corrupt), ("missing", missing)];
    for (name, path) in cases {
        let upstream = MockUpstream::start().await;
        let config = local_model("broken", &path, "") + &cloud_model("cloud", 3.0, &upstream);
        let app = TestApp::start(&config).await;
        let reply = app.chat(&ask("auto", "hello")).await;
        assert_eq!(reply.receipt()["model"], "cloud", "{name}: {}", reply.text);
        let named = app.chat(&ask("broken", "hello")).await;
        assert_eq!(named.status, 503, "{name}: {}", named.text);
        let started = std::time::Instant::now();
        app.stop().await;
        assert!(started.elapsed() < Duration::from_secs(8), "{name}: stopping waits for nothing");
    }
}
