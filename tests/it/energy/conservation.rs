//! Sixteen concurrent streams on the real model, while clients leave, another model is loaded and
//! unloaded, and the engine is killed: the ledgers add up to the meter, to the microjoule, at every
//! check.
//!
//! A few seconds in the suite; `make soak-energy` for ten minutes.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use rustix::process::{Signal, kill_process};
use serde_json::json;
use wattgate::energy::{DeviceSnapshot, MeterSnapshot, SensorChoice};
use wattgate::traffic::Record;
use wattgate::units::{Microjoules, Watts};

use crate::rig::app::{TestApp, ask, ask_streaming, eventually};
use crate::rig::engine::model_path;
use crate::rig::local_models::{engine_pid, fake_smol, local_model, smol};
use crate::rig::machine::{Machine, Shown, counter, zone};

const STREAMS: u64 = 16;

/// State of the run, and the results that clients saw.
struct Run {
    began: Instant,
    length: Duration,
    /// All disturbances are over.
    disturbed: AtomicBool,
    answered: AtomicU64,
    left: AtomicU64,
    /// Refused, or broken by the end of the engine.
    failed: AtomicU64,
}

impl Run {
    fn of(length: Duration) -> Self {
        Self {
            began: Instant::now(),
            length,
            disturbed: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            left: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    fn goes_on(&self) -> bool {
        self.began.elapsed() < self.length || !self.disturbed.load(Ordering::Relaxed)
    }
}

/// Sends requests until the run ends; every fifth client leaves in the middle of its answer.
async fn stream(app: &TestApp, number: u64, run: &Run) {
    let mut round = 0;
    while run.goes_on() {
        round += 1;
        let topics = ["rivers", "bread", "stars", "maps"];
        let topic = topics[usize::try_from((number + round) % 4).unwrap()];
        let mut request =
            ask_streaming("smol", &format!("{number} {round}: Tell me about {topic}."));
        request["max_tokens"] = json!(4 + (number * 7 + round * 13) % 60);
        let pieces = if (number + round).is_multiple_of(5) { 3 } else { u64::MAX };
        let count = match visit(app, &request, pieces).await {
            Some(ControlFlow::Continue(())) => &run.left,
            Some(ControlFlow::Break(())) => &run.answered,
            None => &run.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reads at most this many pieces of an answer; returns whether more followed, `None` if the stream
/// failed.
async fn visit(app: &TestApp, request: &serde_json::Value, pieces: u64) -> Option<ControlFlow<()>> {
    let mut response = app.send("/v1/chat/completions", request).await;
    if response.status() != 200 {
        let status = response.status();
        assert!(status.is_server_error() || status == 429, "{status}");
        // Without a running engine, requests are refused at once.
        tokio::time::sleep(Duration::from_millis(20)).await;
        return None;
    }
    let mut text = Vec::new();
    for _ in 0..pieces {
        let Some(piece) = response.chunk().await.ok()? else {
            let text = String::from_utf8_lossy(&text);
            let whole = text.contains("[DONE]") && !text.contains("\"error\":{");
            return whole.then_some(ControlFlow::Break(()));
        };
        text.extend_from_slice(&piece);
    }
    Some(ControlFlow::Continue(()))
}

/// During the run, loads another model, kills the engine in use, and unloads the other model.
async fn disturb(app: &TestApp, run: &Run) {
    tokio::time::sleep(run.length / 4).await;
    let mut request = ask("twin", "Who wrote Hamlet?");
    request["max_tokens"] = json!(8);
    assert_eq!(app.chat(&request).await.status, 200);
    tokio::time::sleep(run.length / 4).await;
    let pid = engine_pid(app, "smol").expect("the engine runs");
    kill_process(pid, Signal::KILL).unwrap();
    eventually(|| async { (engine_pid(app, "smol") != Some(pid)).then_some(()) }).await;
    app.until_loaded("smol").await;
    assert_eq!(app.post("/admin/models/twin/unload", &json!({})).await.status, 200);
    run.disturbed.store(true, Ordering::Relaxed);
}

async fn check(app: &TestApp, run: &Run) -> u64 {
    let mut checks = 0;
    while run.goes_on() {
        assert_eq!(app.energy().conservation_error(), Microjoules(0));
        checks += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    checks
}

/// Sum over all devices.
fn sum(books: &MeterSnapshot, of: fn(&DeviceSnapshot) -> Microjoules) -> f64 {
    books.devices.iter().map(of).sum::<Microjoules>().joules().0
}

fn assert_whole(books: &MeterSnapshot) {
    for device in &books.devices {
        let account = device.account;
        let parts = account.attributed
            + account.load
            + account.unattributed
            + account.idle_occupied
            + account.idle_empty
            + account.unknown;
        assert_eq!(parts, account.total, "{}", device.info.name);
    }
    assert_eq!(books.conservation_error(), Microjoules(0));
    assert_eq!(books.unknown_settlements, 0, "every engine was read to its end");
    let twin = books.devices.iter().find(|device| &*device.info.name == "engine:twin").unwrap();
    assert!(twin.account.load > Microjoules::ZERO && !twin.live);
}

/// The receipts of all attempts, abandoned and broken ones included, add up to what the ledgers
/// attributed.
fn assert_receipts(records: &[Record], books: &MeterSnapshot) {
    let energies = records.iter().filter_map(|record| record.receipt.energy);
    let receipts: f64 = energies.filter_map(|energy| energy.joules).map(|joules| joules.0).sum();
    let attributed = sum(books, |device| device.account.attributed);
    assert!((receipts - attributed).abs() < 1e-6 * records.len() as f64, "{receipts} {attributed}");
}

fn summary(run: &Run, seconds: f64, checks: u64, books: &MeterSnapshot) -> String {
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let gap = books.devices.iter().map(|device| device.gap).max().unwrap_or_default();
    let late: u64 = books.devices.iter().map(|device| device.late_reports.late_spans).sum();
    let dropped: u64 = books.devices.iter().map(|device| device.late_reports.dropped_rows).sum();
    format!(
        "{seconds:.0} s at {STREAMS} streams: {} answered, {} left, {} failed; metered {:.3} J = attributed {:.3} + loads {:.3} \
         + idle {:.3} + unattributed {:.3} (of it the gateway {:.3}); error {} uJ in {checks} checks; longest gap of a device \
         {:.3} s, {late} late steps, {dropped} dropped rows, meter {:.3} % of a core",
        count(&run.answered),
        count(&run.left),
        count(&run.failed),
        sum(books, |device| device.account.total),
        sum(books, |device| device.account.attributed),
        sum(books, |device| device.account.load),
        sum(books, |device| device.account.idle_occupied + device.account.idle_empty),
        sum(books, |device| device.account.unattributed),
        sum(books, |device| {
            let gateway = &*device.info.name == "gateway";
            if gateway { device.account.unattributed } else { Microjoules::ZERO }
        }),
        books.conservation_error().0,
        gap.as_secs_f64(),
        books.meter_cpu.as_secs_f64() / seconds * 100.0,
    )
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a model: `make test` pulls it"]
async fn sixteen_streams_lose_no_microjoule() {
    let seconds = std::env::var("WATTGATE_CONSERVATION_S").map_or(4, |text| text.parse().unwrap());
    // The CPU model meters each process as a device of its own. The fake engine uses too little CPU
    // time for that.
    let config = [
        "[energy]\nsensors = \"cpu_model\"\n".to_owned(),
        smol("slots = 16"),
        local_model("twin", &model_path(), "load = \"on_demand\""),
    ];
    let app = TestApp::start(&config.concat()).await;
    app.until_loaded("smol").await;
    let run = Run::of(Duration::from_secs(seconds));
    let streams = join_all((0..STREAMS).map(|number| stream(&app, number, &run)));
    let (_, (), checks) = tokio::join!(streams, disturb(&app, &run), check(&app, &run));
    let seconds = run.began.elapsed().as_secs_f64();
    assert!(checks as f64 > seconds, "the books were looked at all the while");
    assert!(run.left.load(Ordering::Relaxed) > 0 && run.failed.load(Ordering::Relaxed) > 0);
    // The gateway notices disconnects with a delay: the engine must have closed every attempt.
    let open = || app.energy().open_attempts;
    eventually(|| async { (open() == 0).then_some(()) }).await;
    let settled = "wattgate_unsettled_requests 0\n";
    eventually(|| async { app.get("/metrics").await.text.contains(settled).then_some(()) }).await;
    let books = app.energy();
    assert_whole(&books);
    println!("{}", summary(&run, seconds, checks, &books));
    assert_receipts(&app.stop().await, &books);
}

/// Regression: each share was counted twice.
#[tokio::test(flavor = "multi_thread")]
async fn each_share_of_idle_energy_is_counted_once() {
    let config = format!("[energy]\nidle_watts = 25.0\n{}", fake_smol(""));
    let app = TestApp::start_fake(&config).await;
    app.until_loaded("smol").await;
    let mut request = ask("smol", "Who wrote Hamlet?");
    request["max_tokens"] = json!(16);
    for _ in 0..3 {
        let reply = app.chat(&request).await;
        app.settled(reply.receipt()["request_id"].as_str().unwrap()).await;
    }
    let metric = async |name: &str| {
        let text = app.get("/metrics").await.text;
        let line = text.lines().find(|line| line.starts_with(name)).expect("it is there");
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    let shares = metric("wattgate_request_idle_energy_joules_total{model=\"smol\"").await;
    let occupied = app.energy().devices[0].account.idle_occupied.joules().0;
    assert!(shares > 0.0 && (shares - occupied).abs() < 1e-5, "{shares} {occupied}");
}

/// Sum of the samples of a family for one device, in microjoules.
fn of_device(metrics: &str, family: &str, device: &str) -> u64 {
    let wanted = format!("device=\"{device}\"");
    let samples = metrics.lines().filter(|line| {
        line.strip_prefix(family)
            .is_some_and(|rest| rest.starts_with('{') && rest.contains(&wanted))
    });
    let joules = samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small, not negative"
    )]
    joules.map(|joules| (joules * 1e6).round() as u64).sum()
}

/// A counter that starts over while requests run: what was read and cannot be told apart is a
/// series of its own, so that the parts of each device add up in every scrape.
#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_each_device_add_up_in_a_scrape() {
    let ids = ["intel-rapl:0", "intel-rapl:0:0"];
    let files = [zone(ids[0], "package-0"), zone(ids[1], "dram")].concat();
    let restarted: Shown = Box::new(|now, _| {
        let since = if now > 1500 { now - 1500 } else { now + 400_000 };
        Some(since * 40_000)
    });
    let live = vec![
        (format!("class/powercap/{}/energy_uj", ids[0]), restarted),
        counter(ids[1], 70, 3, 0),
    ];
    let machine = Machine::start(&files, live);
    let app = TestApp::start_with(&fake_smol(""), |config| {
        config.energy.sensors = SensorChoice::Rapl;
        config.energy.sysfs_root = machine.root().to_owned();
        config.energy.idle_watts = Some(Watts(25.0));
    })
    .await;
    app.until_loaded("smol").await;
    let parts = [
        "wattgate_attributed_energy_joules_total",
        "wattgate_unsettled_energy_joules",
        "wattgate_load_energy_joules_total",
        "wattgate_idle_energy_joules_total",
        "wattgate_unattributed_energy_joules_total",
        "wattgate_unknown_energy_joules_total",
    ];
    let mut request = ask("smol", "Who wrote Hamlet?");
    request["max_tokens"] = json!(16);
    let mut metrics = String::new();
    while machine.now_ms() < 3000 {
        app.chat(&request).await;
        metrics = app.get("/metrics").await.text;
        for device in ["package-0", "dram-0"] {
            let metered = of_device(&metrics, "wattgate_device_energy_joules_total", device);
            let sum: u64 = parts.iter().map(|family| of_device(&metrics, family, device)).sum();
            assert_eq!(sum, metered, "{device}: {metrics}");
        }
    }
    assert!(of_device(&metrics, "wattgate_unknown_energy_joules_total", "package-0") > 0);
    assert!(of_device(&metrics, "wattgate_attributed_energy_joules_total", "package-0") > 0);
}
