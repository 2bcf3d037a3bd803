//! Priorities, deadlines, the queue and metrics of the engine, over HTTP.

use std::time::Instant;

use serde_json::{Value, json};

use crate::rig::app::{Reply, Sse, TestApp, ask, ask_streaming, cloud_model};
use crate::rig::fake_engine::FakeModel;
use crate::rig::local_models::{local_model, short};
use crate::rig::mock_upstream::{MockUpstream, Mode};

async fn one_slot(extra: &str) -> TestApp {
    let slow = FakeModel::new("scheduling", "step_ms = 20");
    let config = local_model("smol", slow.path(), &format!("slots = 1\n{extra}"));
    let app = TestApp::start_fake(&config).await;
    app.until_loaded("smol").await;
    app
}

async fn chat_with(app: &TestApp, header: (&str, &str), body: &Value) -> Reply {
    let request = app.request("/v1/chat/completions").header(header.0, header.1).json(body);
    Reply::of(request.send().await.unwrap()).await
}

/// Occupies the only slot: a stream that has begun and outlasts the test. Dropping it frees the
/// slot.
async fn occupy(app: &TestApp) -> reqwest::Response {
    let mut request = ask_streaming("smol", "Write a very long story.");
    request["max_tokens"] = json!(900);
    request["ignore_eos"] = json!(true);
    let mut response = app.send("/v1/chat/completions", &request).await;
    assert!(response.chunk().await.unwrap().is_some());
    response
}

#[tokio::test]
async fn an_invalid_scheduling_header_is_refused_by_name() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&cloud_model("cloud", 1.0, &upstream)).await;
    for (header, value) in [("x-wattgate-priority", "urgent"), ("x-wattgate-deadline-ms", "soon")] {
        let reply = chat_with(&app, (header, value), &ask("cloud", "hello")).await;
        assert_eq!(reply.error(), (400, "invalid_request_error", "invalid_value"));
        assert_eq!(reply.json["error"]["param"], header);
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn queued_requests_are_served_in_order_of_priority() {
    let app = one_slot("").await;
    let occupied = occupy(&app).await;
    let ended = |priority: &'static str, before: usize| {
        let app = &app;
        async move {
            app.until_in_flight("smol", before).await;
            let body = short("smol", "hi");
            let reply = chat_with(app, ("x-wattgate-priority", priority), &body).await;
            assert_eq!(reply.status, 200, "{}", reply.text);
            Instant::now()
        }
    };
    let queued = async {
        app.until_in_flight("smol", 4).await;
        drop(occupied);
    };
    let (low, normal, high, ()) =
        tokio::join!(ended("low", 1), ended("normal", 2), ended("high", 3), queued);
    assert!(high < normal && normal < low);
    app.stop().await;
}

#[tokio::test]
async fn a_deadline_ends_a_queued_and_a_running_request() {
    let app = one_slot("").await;
    let mut occupied = occupy(&app).await;
    let late = chat_with(&app, ("x-wattgate-deadline-ms", "300"), &short("smol", "hi")).await;
    assert_eq!(late.error(), (504, "api_error", "deadline_exceeded"), "{}", late.text);
    assert!(occupied.chunk().await.unwrap().is_some(), "the running stream is not disturbed");
    drop(occupied);

    let mut endless = ask_streaming("smol", "Write a very long story.");
    endless["max_tokens"] = json!(900);
    let request = app.request("/v1/chat/completions").header("x-wattgate-deadline-ms", "1500");
    let response = request.json(&endless).send().await.unwrap();
    if response.status() == 200 {
        let sse = Sse::of(response).await;
        assert_eq!(sse.chunks.last().unwrap()["error"]["code"], "deadline_exceeded");
        assert!(!sse.done);
    } else {
        // The first token missed the deadline.
        assert_eq!(response.status(), 504);
    }
    app.until_in_flight("smol", 0).await;
    // A deadline that is met has no effect.
    let reply = chat_with(&app, ("x-wattgate-deadline-ms", "60000"), &short("smol", "hi")).await;
    assert_eq!(reply.status, 200);
    app.stop().await;
}

#[tokio::test]
async fn a_deadline_ends_an_upstream_request() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&cloud_model("cloud", 1.0, &upstream)).await;
    upstream.respond_with(Mode::HangBeforeHeaders);
    let late = chat_with(&app, ("x-wattgate-deadline-ms", "200"), &ask("auto", "hello")).await;
    assert_eq!(late.error(), (504, "api_error", "deadline_exceeded"), "{}", late.text);
    upstream.until_open(0).await;
}

#[tokio::test]
async fn a_full_queue_is_refused_with_its_length() {
    let app = one_slot("queue = 1").await;
    let occupied = occupy(&app).await;
    let second = short("smol", "hi");
    let waiting = app.chat(&second);
    let refusing = async {
        app.until_in_flight("smol", 2).await;
        let card = app.get("/v1/models/smol").await.json;
        assert_eq!((&card["in_flight"], &card["waiting"]), (&json!(2), &json!(1)));
        let metrics = app.get("/metrics").await.text;
        assert!(metrics.contains("wattgate_engine_queue_depth{model=\"smol\"} 1\n"), "{metrics}");
        let refused = app.chat(&short("smol", "hi")).await;
        drop(occupied);
        refused
    };
    let (waited, refused) = tokio::join!(waiting, refusing);
    assert_eq!(waited.status, 200);
    assert_eq!(refused.error(), (429, "rate_limit_error", "overloaded"), "{}", refused.text);
    assert!(refused.text.contains("2 requests are ahead"), "{}", refused.text);
    assert!(refused.header("retry-after").parse::<u32>().unwrap() > 0);
    app.stop().await;
}

#[tokio::test]
async fn engine_work_appears_in_metrics() {
    let app = one_slot("").await;
    let mut usage = json!({});
    for _ in 0..2 {
        let reply = app.chat(&short("smol", "Who wrote Hamlet?")).await;
        usage = reply.json["usage"].clone();
    }
    let metrics = app.get("/metrics").await.text;
    let text = |name: &str| {
        let labelled = format!("wattgate_{name}");
        let line = metrics.lines().find(|line| line.starts_with(&labelled));
        let line = line.unwrap_or_else(|| panic!("no {labelled} in {metrics}"));
        line.rsplit(' ').next().unwrap()
    };
    let count = |name: &str| text(name).trim_end_matches(".0").parse::<u64>().unwrap();
    let prompt = usage["prompt_tokens"].as_u64().unwrap();
    // The second request prefills only the last token of the prompt.
    assert_eq!(count("engine_prefill_tokens_total{model=\"smol\"}"), prompt + 1);
    assert_eq!(count("engine_cached_tokens_total{model=\"smol\",from=\"slot\"}"), prompt - 1);
    let completion = usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(count("engine_decode_tokens_total{model=\"smol\"}"), 2 * (completion - 1));
    for seconds in ["engine_prefill_seconds_total", "engine_decode_seconds_total"] {
        assert!(text(&format!("{seconds}{{model=\"smol\"}}")).parse::<f64>().unwrap() > 0.0);
    }
    assert_eq!(count("engine_queue_wait_seconds_count{model=\"smol\"}"), 2);
    assert_eq!(count("engine_busy_slots_sum{model=\"smol\"}"), count("engine_busy_slots_count{"));
    let paced = "time_per_output_token_seconds_count{model=\"smol\",route=\"local\"}";
    assert_eq!(count(paced), 2);
    app.stop().await;
}
