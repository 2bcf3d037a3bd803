//! Sixteen streams at once on the real model: the books add up to the meter, to the microjoule, all the while.
//!
//! A few seconds in the suite; `WATTGATE_CONSERVATION_S=600` for the long run.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use wattgate::units::Microjoules;

use crate::app::{TestApp, ask_streaming, eventually};
use crate::local::smol;

const STREAMS: u64 = 16;

/// Asks until the time is up; every fifth client leaves in the middle of its answer.
async fn stream(app: &TestApp, number: u64, until: Instant) {
    let mut round = 0;
    while Instant::now() < until {
        round += 1;
        let topics = ["rivers", "bread", "stars", "maps"];
        let topic = topics[usize::try_from((number + round) % 4).unwrap()];
        let mut request =
            ask_streaming("smol", &format!("{number} {round}: Tell me about {topic}."));
        request["max_tokens"] = json!(4 + (number * 7 + round * 13) % 60);
        let mut response = app.send("/v1/chat/completions", &request).await;
        assert_eq!(response.status(), 200);
        let pieces = if (number + round).is_multiple_of(5) { 3 } else { u64::MAX };
        for _ in 0..pieces {
            if response.chunk().await.unwrap().is_none() {
                break;
            }
        }
    }
}

async fn check(app: &TestApp, until: Instant) -> u64 {
    let mut checks = 0;
    while Instant::now() < until {
        assert_eq!(app.gateway.router.meter.books().conservation_error(), Microjoules(0));
        checks += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    checks
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_streams_lose_no_microjoule() {
    let seconds = std::env::var("WATTGATE_CONSERVATION_S").map_or(4, |text| text.parse().unwrap());
    let app = TestApp::start(&smol("slots = 16")).await;
    app.until_loaded("smol").await;
    let until = Instant::now() + Duration::from_secs(seconds);
    let streams = join_all((0..STREAMS).map(|number| stream(&app, number, until)));
    let (_, checks) = tokio::join!(streams, check(&app, until));
    assert!(checks > seconds, "the books were looked at all the while");
    // Who left is noticed a moment later: the engine must have let go of every attempt.
    let open = || app.gateway.router.meter.books().open_attempts;
    eventually(|| async { (open() == 0).then_some(()) }).await;
    let settled = "wattgate_unsettled_requests 0\n";
    eventually(|| async { app.get("/metrics").await.text.contains(settled).then_some(()) }).await;
    let books = app.gateway.router.meter.books();
    let engine = books.devices.iter().find(|device| &*device.info.name == "engine:smol").unwrap();
    let account = engine.account;
    let parts = account.attributed
        + account.load
        + account.unattributed
        + account.idle_occupied
        + account.idle_empty;
    assert_eq!((parts, books.conservation_error()), (account.total, Microjoules(0)));
    // The receipts of all attempts, the abandoned ones too, are what the ledger attributed.
    let (total, attributed) = (account.total.joules().0, account.attributed.joules().0);
    let records = app.stop().await;
    let energies =
        records.iter().map(|record| serde_json::to_value(record.receipt.energy).unwrap());
    let receipts: f64 = energies.filter_map(|energy: Value| energy["joules"].as_f64()).sum();
    assert!((receipts - attributed).abs() < 1e-6 * records.len() as f64, "{receipts} {attributed}");
    println!(
        "{} requests, {checks} checks, {total:.3} J metered, {attributed:.3} J attributed, error 0 µJ",
        records.len()
    );
}
