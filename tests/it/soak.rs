//! Many short requests whose clients come and go: no slot and no memory is lost.

use std::time::Duration;

use futures::{StreamExt, stream};
use serde_json::json;
use wattgate::gateway::Kind;

use crate::app::{TestApp, ask_streaming, eventually};
use crate::local::smol;

/// Clients at a time: more than slots, so that some leave the queue.
const CLIENTS: usize = 12;

/// A fixed sequence that looks random: splitmix64 of the index.
fn dice(index: u64) -> u64 {
    let mut mixed = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 31)
}

/// One client: asks, reads none, some or all of the answer, and leaves.
async fn visit(app: &TestApp, index: u64) {
    let roll = dice(index);
    let mut request = ask_streaming("smol", &format!("Say the number {}.", roll % 50));
    request["max_tokens"] = json!(1 + roll % 6);
    let asking = app.send("/v1/chat/completions", &request);
    if roll.is_multiple_of(5) {
        // Leaves within the time that queueing and reading the prompt take.
        let patience = Duration::from_millis((roll >> 8) % 60);
        let _left = tokio::time::timeout(patience, asking).await;
        return;
    }
    let mut response = asking.await;
    assert_eq!(response.status(), 200);
    let pieces = if roll.is_multiple_of(3) { roll % 4 } else { u64::MAX };
    for _ in 0..pieces {
        if response.chunk().await.unwrap().is_none() {
            break;
        }
    }
}

async fn visits(app: &TestApp, range: std::ops::Range<u64>) {
    stream::iter(range).for_each_concurrent(CLIENTS, |index| visit(app, index)).await;
}

/// Resident memory of the engine process in MiB.
fn engine_mib(app: &TestApp) -> u64 {
    let Kind::Local { engine, .. } = &app.gateway.router.model("smol").unwrap().kind else {
        unreachable!("it is a local model");
    };
    let pid = engine.borrow().pid.expect("the engine runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// 300 requests; `WATTGATE_SOAK=10000` for the long run.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_come_and_go_leave_nothing_behind() {
    let count = std::env::var("WATTGATE_SOAK").map_or(300, |text| text.parse::<u64>().unwrap());
    // No host cache: it grows to its budget by design.
    let app = TestApp::start(&smol("slots = 4\nhost_cache_mib = 0")).await;
    app.until_loaded("smol").await;
    visits(&app, 0..count / 3).await;
    let before = engine_mib(&app);
    visits(&app, count / 3..count).await;
    let after = engine_mib(&app);
    assert!(after <= before + 16, "the engine grew from {before} to {after} MiB");
    // Every slot and every place in the queue is free again, and all four work.
    let backend = &app.gateway.router.model("smol").unwrap().backend;
    eventually(|| async { (backend.health().in_flight == 0).then_some(()) }).await;
    let requests: Vec<_> = (0..4).map(|n| ask_streaming("smol", &format!("Say {n}."))).collect();
    let answers = requests.into_iter().map(|mut request| {
        let app = &app;
        async move {
            request["max_tokens"] = json!(4);
            app.stream(&request).await
        }
    });
    for answer in futures::future::join_all(answers).await {
        assert!(answer.done);
    }
    let metrics = app.get("/metrics").await.text;
    assert!(metrics.contains("wattgate_engine_restarts_total{model=\"smol\"} 0"), "it died");
    app.stop().await;
}
