//! The cascade with a local model, mostly fake, and a stronger mock upstream: which answers are
//! withheld, shown, dropped and recorded.

use serde_json::{Value, json};

use crate::rig::app::{TestApp, cloud_model};
use crate::rig::fake_engine::FakeModel;
use crate::rig::local_models::{fake_smol, local_model, short, smol};
use crate::rig::mock_upstream::{MockUpstream, Mode};

/// A gateway whose policy `frugal` starts with a fake local model and shows its answers from this
/// confidence on.
async fn gateway(upstream: &MockUpstream, threshold: f64, more: &str) -> TestApp {
    gateway_with(upstream, &format!("threshold = {threshold:?}\n{more}")).await
}

async fn gateway_with(upstream: &MockUpstream, cascade: &str) -> TestApp {
    loaded(TestApp::start_fake(&config(&fake_smol(""), upstream, cascade)).await).await
}

/// The same with the real SmolLM2.
async fn real_gateway(upstream: &MockUpstream, threshold: f64) -> TestApp {
    let cascade = format!("threshold = {threshold:?}");
    loaded(TestApp::start(&config(&smol(""), upstream, &cascade)).await).await
}

fn config(local: &str, upstream: &MockUpstream, cascade: &str) -> String {
    let policy = format!(
        "[policies.frugal]\nfloor = 0.9\n[policies.frugal.cascade]\nmin_p = 0.0\n{cascade}\n"
    );
    policy + local + &cloud_model("cloud", 4.0, upstream)
}

async fn loaded(app: TestApp) -> TestApp {
    app.until_loaded("smol").await;
    app
}

const QUESTION: &str = "Who wrote Hamlet?";

fn outcomes(record: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let attempts = record["attempts"].as_array().unwrap();
    attempts.iter().map(|one| (text(&one["model"]), text(&one["outcome"]))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[tokio::test]
async fn a_confident_answer_is_shown_and_an_unsure_one_dropped_and_recorded_as_wasted() {
    for stream in [false, true] {
        let upstream = MockUpstream::start().await;
        let sure = gateway(&upstream, 0.0, "").await;
        let mut request = short("auto/frugal", QUESTION);
        request["stream"] = json!(stream);
        let (content, receipt) = answer(&sure, &request).await;
        assert!(content.contains("Shakespeare"), "{content}");
        assert_eq!(outcomes(&receipt), pairs(&[("smol", "answered")]));
        let reason = receipt["reason"].as_str().unwrap();
        assert!(reason.contains("smol starts") && reason.contains("looked sure"), "{reason}");
        assert!(upstream.requests().is_empty());

        let unsure = gateway(&upstream, 1.0, "").await;
        let (content, receipt) = answer(&unsure, &request).await;
        assert_eq!(content, MockUpstream::reply_to(QUESTION));
        assert_eq!(outcomes(&receipt), pairs(&[("smol", "escalated"), ("cloud", "answered")]));
        assert_eq!((&receipt["model"], &receipt["route"]), (&json!("cloud"), &json!("cloud")));
        let reason = receipt["reason"].as_str().unwrap();
        assert!(reason.contains("smol looked unsure (confidence 0."), "{reason}");
        // Both attempts are recorded.
        let record = unsure.settled(receipt["request_id"].as_str().unwrap()).await;
        let joules = |value: &Value| value["joules"].as_f64().unwrap();
        let (wasted, answered) = (&record["attempts"][0], &record["attempts"][1]);
        assert!(joules(wasted) > 0.0, "{record}");
        let sum = joules(wasted) + joules(answered);
        assert!((joules(&record["energy"]) - sum).abs() < 1e-9, "{record}");
        let metrics = unsure.get("/metrics").await.text;
        let line = metrics
            .lines()
            .find(|line| line.starts_with("wattgate_request_energy_joules_total{model=\"smol\""));
        assert!(line.is_some_and(|line| line.contains("purpose=\"wasted\"")), "{metrics}");
    }
}

/// Text and receipt of an answer, streamed or not.
async fn answer(app: &TestApp, request: &Value) -> (String, Value) {
    if request["stream"] == true {
        let sse = app.stream(request).await;
        assert!(sse.done);
        let models: Vec<&Value> = sse.chunks.iter().map(|chunk| &chunk["model"]).collect();
        assert!(models.iter().all(|model| *model == models[0]), "nothing of the other: {models:?}");
        (sse.content(), sse.receipt().clone())
    } else {
        let reply = app.chat(request).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        (reply.content().to_owned(), reply.receipt().clone())
    }
}

#[tokio::test]
async fn every_local_answer_records_its_signals_over_the_exact_window() {
    let upstream = MockUpstream::start().await;
    let app = gateway(&upstream, 0.0, "withhold_tokens = 5").await;
    let mut request = short("auto/frugal", "Tell me a long story about a ship.");
    request["max_tokens"] = json!(40);
    let (content, receipt) = answer(&app, &request).await;
    let watched = &receipt["attempts"][0];
    assert_eq!(
        (&watched["signals"]["tokens"], &watched["signals"]["complete"]),
        (&json!(5), &json!(false))
    );
    assert!(watched["confidence"].as_f64().is_some_and(|p| (0.0..=1.0).contains(&p)), "{watched}");
    // Without a cascade nothing is withheld and the signals cover 8 tokens.
    request["model"] = json!("smol");
    let (same, receipt) = answer(&app, &request).await;
    assert_eq!(same, content, "watching changes nothing");
    let pinned = &receipt["attempts"][0];
    assert_eq!(pinned["signals"]["tokens"], 8);
    assert_eq!(pinned.get("confidence"), None);
    let signals = &pinned["signals"];
    assert!(signals["mean_logprob"].as_f64().unwrap() < 0.0, "{signals}");
    assert!(signals["min_logprob"].as_f64() <= signals["mean_logprob"].as_f64(), "{signals}");
    assert!(signals["mean_entropy"].as_f64().unwrap() > 0.0, "{signals}");
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn the_signals_equal_those_computed_from_client_logprobs() {
    let upstream = MockUpstream::start().await;
    let app = real_gateway(&upstream, 0.0).await;
    let mut request = short("smol", QUESTION);
    request["max_tokens"] = json!(6);
    request["logprobs"] = json!(true);
    let reply = app.chat(&request).await;
    let tokens = reply.json["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let logprobs: Vec<f64> = tokens.iter().map(|one| one["logprob"].as_f64().unwrap()).collect();
    let signals = &reply.receipt()["attempts"][0]["signals"];
    assert_eq!(signals["tokens"], tokens.len());
    let mean = logprobs.iter().sum::<f64>() / logprobs.len() as f64;
    assert!((signals["mean_logprob"].as_f64().unwrap() - mean).abs() < 1e-4, "{signals} {mean}");
    let least = logprobs.iter().copied().fold(0.0, f64::min);
    assert!((signals["min_logprob"].as_f64().unwrap() - least).abs() < 1e-4, "{signals} {least}");
}

#[tokio::test]
async fn a_weak_answer_is_shown_if_escalation_fails() {
    let upstream = MockUpstream::start().await;
    for mode in [Mode::Status(500), Mode::Status(400)] {
        let app = gateway(&upstream, 1.0, "").await;
        upstream.respond_with(mode);
        let (content, receipt) = answer(&app, &short("auto/frugal", QUESTION)).await;
        assert!(content.contains("Shakespeare"), "{content}");
        let expected = [("smol", "escalated"), ("cloud", "failed"), ("smol", "answered")];
        assert_eq!(outcomes(&receipt), pairs(&expected));
    }
}

#[tokio::test]
async fn local_only_and_named_models_are_not_escalated() {
    let upstream = MockUpstream::start().await;
    let app = gateway(&upstream, 1.0, "").await;
    let request = app.request("/v1/chat/completions").header("x-wattgate-local-only", "true");
    let reply: Value =
        request.json(&short("auto/frugal", QUESTION)).send().await.unwrap().json().await.unwrap();
    assert_eq!(outcomes(&reply["wattgate"]), pairs(&[("smol", "answered")]));
    let (_, receipt) = answer(&app, &short("smol", QUESTION)).await;
    assert_eq!(outcomes(&receipt), pairs(&[("smol", "answered")]));
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn withholding_ends_in_time_and_a_client_that_leaves_meanwhile_frees_the_slot() {
    let upstream = MockUpstream::start().await;
    // 200 tokens take this model more than a millisecond.
    let app = gateway(&upstream, 0.0, "withhold_tokens = 200\nwithhold_ms = 1").await;
    let mut request = short("auto/frugal", "Tell me a long story about a ship.");
    request["max_tokens"] = json!(400);
    request["ignore_eos"] = json!(true);
    let (_, receipt) = answer(&app, &request).await;
    assert!(receipt["attempts"][0]["confidence"].is_number(), "{receipt}");

    let slow = FakeModel::new("cascade", "step_ms = 20");
    let cascade = "threshold = 1.0\nwithhold_tokens = 256\nwithhold_ms = 60000";
    let local = local_model("smol", slow.path(), "");
    let app = loaded(TestApp::start_fake(&config(&local, &upstream, cascade)).await).await;
    request["max_tokens"] = json!(900);
    app.leave("/v1/chat/completions", &request, app.until_in_flight("smol", 1)).await;
    app.until_in_flight("smol", 0).await;
    let records = app.until_logged(1).await;
    assert_eq!(records[0].outcome.label(), "cancelled");
}

#[tokio::test]
async fn requests_without_signals_are_routed_by_the_floor() {
    let upstream = MockUpstream::start().await;
    let app = gateway(&upstream, 0.0, "").await;
    let mut several = short("auto/frugal", QUESTION);
    several["n"] = json!(2);
    let raw = json!({"model": "auto/frugal", "prompt": "Hamlet was written by", "max_tokens": 4});
    for (path, request) in [("/v1/chat/completions", several), ("/v1/completions", raw)] {
        let reply = app.post(path, &request).await;
        assert_eq!(outcomes(reply.receipt()), pairs(&[("cloud", "answered")]), "{}", reply.text);
        assert!(!reply.header("x-wattgate-reason").contains("watched"), "{:?}", reply.headers);
    }
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn constrained_answers_calls_and_logprobs_are_shown_or_dropped_whole() {
    let form = json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true,
        "schema": {"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"],
            "additionalProperties": false}}}});
    let call = json!({"tool_choice": "required", "tools": [{"type": "function", "function": {"name": "clock",
        "parameters": {"type": "object", "properties": {"zone": {"enum": ["UTC"]}}, "required": ["zone"]}}}]});
    let logprobs = json!({"logprobs": true, "top_logprobs": 2});
    let upstream = MockUpstream::start().await;
    let (sure, unsure) = (real_gateway(&upstream, 0.0).await, real_gateway(&upstream, 1.0).await);
    for (wish, path) in [
        (form, "/choices/0/message/content"),
        (call, "/choices/0/message/tool_calls/0/function/name"),
        (logprobs, "/choices/0/logprobs/content/1/top_logprobs/1/token"),
    ] {
        let mut request = short("auto/frugal", QUESTION);
        request.as_object_mut().unwrap().extend(wish.as_object().unwrap().clone());
        let shown = sure.chat(&request).await;
        assert_eq!(outcomes(shown.receipt()), pairs(&[("smol", "answered")]), "{}", shown.text);
        assert!(shown.json.pointer(path).is_some_and(Value::is_string), "{path} {}", shown.text);
        let dropped = unsure.chat(&request).await;
        let expected = [("smol", "escalated"), ("cloud", "answered")];
        assert_eq!(outcomes(dropped.receipt()), pairs(&expected), "{}", dropped.text);
        assert_eq!(dropped.content(), MockUpstream::reply_to(QUESTION), "and nothing else of it");
        request["stream"] = json!(true);
        let (content, receipt) = answer(&unsure, &request).await;
        assert_eq!(
            (content, outcomes(&receipt)),
            (MockUpstream::reply_to(QUESTION), pairs(&expected))
        );
    }
}

#[tokio::test]
async fn shown_answers_reach_the_floor_unless_a_threshold_is_set() {
    let upstream = MockUpstream::start().await;
    let app = gateway_with(&upstream, "").await;
    let with_floor = async |floor: f64| {
        let mut request = short("auto/frugal", QUESTION);
        request["wattgate"] = json!({"floor": floor});
        answer(&app, &request).await.1
    };
    let low = with_floor(0.0).await;
    let confidence = low["attempts"][0]["confidence"].as_f64().unwrap();
    assert_eq!(outcomes(&low), pairs(&[("smol", "answered")]), "{low}");
    let high = with_floor(confidence + 0.001).await;
    assert_eq!(outcomes(&high), pairs(&[("smol", "escalated"), ("cloud", "answered")]), "{high}");
    let wanted = format!("first tokens is below {:.2}", confidence + 0.001);
    assert!(high["reason"].as_str().unwrap().contains(&wanted), "{high}");
}

#[tokio::test]
async fn after_a_failed_answer_the_next_turn_skips_the_weak_model() {
    let upstream = MockUpstream::start().await;
    let app = gateway(&upstream, 0.0, "").await;
    let first = short("auto/frugal", QUESTION);
    let (content, receipt) = answer(&app, &first).await;
    assert_eq!(outcomes(&receipt), pairs(&[("smol", "answered")]));
    let verdict = json!({"request_id": receipt["request_id"], "verdict": "bad"});
    assert_eq!(app.post("/v1/feedback", &verdict).await.status, 200);
    let mut second = first.clone();
    let turns = second["messages"].as_array_mut().unwrap();
    turns.push(json!({"role": "assistant", "content": content}));
    turns.push(json!({"role": "user", "content": "Are you sure?"}));
    let (_, receipt) = answer(&app, &second).await;
    assert_eq!(outcomes(&receipt), pairs(&[("cloud", "answered")]), "{receipt}");
}

#[tokio::test]
async fn a_replay_repeats_the_decision_of_the_cascade() {
    let upstream = MockUpstream::start().await;
    let app = gateway(&upstream, 1.0, "").await;
    answer(&app, &short("auto/frugal", QUESTION)).await;
    let records = app.stop().await;
    let config = wattgate::routing::PolicyConfig {
        objective: records[0].rule.objective,
        floor: records[0].rule.floor,
        cascade: records[0].rule.cascade,
        ..wattgate::routing::PolicyConfig::default()
    };
    let policy = std::sync::Arc::new(wattgate::routing::Policy { name: "default".into(), config });
    let mut replay = wattgate::replay::Replay::new(vec![policy]);
    for record in &records {
        replay.add(record);
    }
    let report = serde_json::to_value(replay.report()).unwrap();
    assert_eq!((&report["requests"], &report["reproduced"]), (&json!(1), &json!(1)), "{report}");
}
