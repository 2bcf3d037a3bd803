//! Metrics of a local engine: after real work, every figure has moved.

use serde_json::json;

use crate::rig::app::{TestApp, ask};
use crate::rig::local_models::fake_smol;

/// Sum over the series that begin with this name and labels.
fn value(metrics: &str, series: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.starts_with(series));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn every_engine_metric_moves_with_work() {
    let app = TestApp::start_fake(&fake_smol("slots = 2\nload = \"on_demand\"\n")).await;
    let mut request = ask("smol", "Tell me of rivers, of bridges and of the bread of old towns.");
    request["max_tokens"] = json!(12);
    request["ignore_eos"] = json!(true);
    for _ in 0..2 {
        let (reply, other) = futures::join!(app.chat(&request), app.chat(&request));
        assert_eq!((reply.status, other.status), (200, 200), "{}", reply.text);
        app.settled(reply.receipt()["request_id"].as_str().unwrap()).await;
    }
    let metrics = app.get("/metrics").await.text;
    for series in [
        "wattgate_time_to_first_token_seconds_count{model=\"smol\"",
        "wattgate_time_per_output_token_seconds_sum{model=\"smol\"",
        "wattgate_engine_queue_wait_seconds_count{model=\"smol\"",
        "wattgate_engine_prefill_seconds_total{model=\"smol\"",
        "wattgate_engine_decode_seconds_total{model=\"smol\"",
        "wattgate_engine_prefill_tokens_total{model=\"smol\"",
        "wattgate_engine_decode_tokens_total{model=\"smol\"",
        "wattgate_engine_cached_tokens_total{model=\"smol\"",
        "wattgate_engine_busy_slots_sum{model=\"smol\"",
        "wattgate_model_loads_total{model=\"smol\"",
        "wattgate_model_load_seconds_sum{model=\"smol\"",
        "wattgate_model_resident_bytes{model=\"smol\"",
    ] {
        assert!(value(&metrics, series) > 0.0, "{series}: {metrics}");
    }
    // Two concurrent answers: some step worked on both.
    let steps = value(&metrics, "wattgate_engine_busy_slots_count{model=\"smol\"");
    assert!(value(&metrics, "wattgate_engine_busy_slots_sum{model=\"smol\"") > steps, "{metrics}");
    assert!(value(&metrics, "wattgate_engine_decode_tokens_total{model=\"smol\"") >= 40.0);
}
