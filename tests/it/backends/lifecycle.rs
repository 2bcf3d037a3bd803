//! Loading on demand, unloading, eviction and admin actions, with the real SmolLM2 under several
//! names.

use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use rustix::process::{Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use wattgate::traffic::Record;

use crate::rig::app::{Reply, TestApp, ask, ask_streaming, cloud_model, eventually};
use crate::rig::engine::model_path;
use crate::rig::fake_engine::{FAKE, FakeModel};
use crate::rig::gguf::header_only;
use crate::rig::local_models::{engine_pid as pid, engine_state};
use crate::rig::mock_upstream::MockUpstream;

/// A small fake engine under this name.
fn model(name: &str, load: &str, extra: &str) -> String {
    model_at(FAKE.path(), name, load, extra)
}

fn model_at(path: &Path, name: &str, load: &str, extra: &str) -> String {
    format!(
        "[models.{name}]\nability = -2.5\n[models.{name}.llama]\nsource = \"file:{}\"\nload = \"{load}\"\n\
         context_tokens = 1024\nslots = 2\nbatch_tokens = 128\n{extra}\n",
        path.display()
    )
}

fn on_demand(name: &str) -> String {
    model(name, "on_demand", "")
}

fn short(model: &str) -> Value {
    let mut request = ask(model, "Who wrote Hamlet?");
    request["max_tokens"] = json!(8);
    request["temperature"] = json!(0);
    request
}

fn long(model: &str) -> Value {
    let mut request = ask_streaming(model, "Write a very long story.");
    request["max_tokens"] = json!(900);
    request["ignore_eos"] = json!(true);
    request
}

async fn card(app: &TestApp, model: &str) -> Value {
    app.get(&format!("/v1/models/{model}")).await.json
}

async fn state(app: &TestApp, model: &str) -> String {
    card(app, model).await["state"].as_str().unwrap().to_owned()
}

async fn until_state(app: &TestApp, model: &str, wanted: &str) {
    eventually(|| async { (state(app, model).await == wanted).then_some(()) }).await;
}

async fn order(app: &TestApp, order: &str) -> Reply {
    app.post(&format!("/admin/models/{order}"), &json!({})).await
}

fn restarts(app: &TestApp, model: &str) -> u32 {
    engine_state(app, model).borrow().restarts
}

/// As [`metric`], for whole numbers.
async fn count(app: &TestApp, start: &str) -> u64 {
    let value = metric(app, start).await;
    assert!(value.fract().abs() < f64::EPSILON && value >= 0.0, "{start} {value}");
    format!("{value:.0}").parse().unwrap()
}

async fn metric(app: &TestApp, start: &str) -> f64 {
    let metrics = app.get("/metrics").await.text;
    let line = metrics.lines().find_map(|line| line.strip_prefix(start)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// Memory estimate of one of these engines in MiB.
async fn needed_mib(app: &TestApp, model: &str) -> u64 {
    card(app, model).await["memory"]["budgeted_bytes"].as_u64().unwrap().div_ceil(1 << 20)
}

/// A gateway whose memory budget holds one and a half of its models.
async fn one_at_a_time(models: &[&str], extra: &str) -> TestApp {
    let config: String = models.iter().map(|name| model(name, "on_demand", extra)).collect();
    let probe = TestApp::start_fake(&config).await;
    let mib =
        eventually(|| async { Some(needed_mib(&probe, models[0]).await).filter(|mib| *mib > 0) })
            .await;
    probe.stop().await;
    TestApp::start_fake(&format!("[engines]\nmemory_budget_mib = {}\n{config}", mib * 3 / 2)).await
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn the_first_request_loads_the_model_and_later_ones_wait_for_it() {
    let app = TestApp::start(&model_at(&model_path(), "smol", "on_demand", "")).await;
    until_state(&app, "smol", "unloaded").await;
    assert_eq!(app.get("/readyz").await.status, 200, "a request would be answered");
    assert!(pid(&app, "smol").is_none(), "nothing runs before somebody asks");
    let requests = (0..5).map(|_| async { app.chat(&short("auto")).await });
    for reply in join_all(requests).await {
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert!(reply.content().contains("Shakespeare"), "{}", reply.content());
    }
    assert_eq!(state(&app, "smol").await, "loaded");
    assert_eq!(count(&app, "wattgate_model_loads_total{model=\"smol\"}").await, 1);
    let resident = metric(&app, "wattgate_model_resident_bytes{model=\"smol\"}").await;
    let memory = card(&app, "smol").await["memory"].clone();
    let budgeted = memory["budgeted_bytes"].as_f64().unwrap();
    // The estimate covers the pages that have been touched.
    assert!(resident > 0.4 * budgeted && resident < 1.2 * budgeted, "{resident} {memory}");
}

#[tokio::test]
async fn an_unloaded_model_reports_the_cost_of_loading() {
    let app = TestApp::start_fake(&on_demand("smol")).await;
    until_state(&app, "smol", "unloaded").await;
    assert_eq!(app.chat(&short("smol")).await.receipt()["candidates"][0]["state"], "unloaded");
    let warm = app.chat(&short("smol")).await;
    let warm = &warm.receipt()["candidates"][0];
    assert_eq!(warm["state"], Value::Null);
    // The load has been metered, so its energy is no longer the default of a model never loaded.
    eventually(|| async {
        let joules = metric(&app, "wattgate_model_load_energy_joules_total{model=\"smol\"}").await;
        (joules > 0.0).then_some(())
    })
    .await;
    // The first answer waited for the load, which is no first-token time: one more answer sets it.
    app.until_logged(2).await;
    let warm = app.post("/v1/route", &short("smol")).await.json["candidates"][0].clone();
    assert_eq!(order(&app, "smol/unload").await.status, 200);
    let cold = app.post("/v1/route", &short("smol")).await.json["candidates"][0].clone();
    assert_eq!((&cold["state"], &cold["excluded"]), (&json!("unloaded"), &Value::Null));
    let added = |field: &str| cold[field].as_f64().unwrap() - warm[field].as_f64().unwrap();
    let load_joules = metric(&app, "wattgate_model_load_energy_joules_total{model=\"smol\"}").await;
    assert!(
        (added("joules") - load_joules).abs() < 0.5 * load_joules,
        "{cold} {warm} {load_joules}"
    );
    let load_ms = 1e3 * metric(&app, "wattgate_model_load_seconds_sum{model=\"smol\"}").await;
    assert!((added("ttft_ms") - load_ms).abs() < 1.0, "{cold} {warm} {load_ms}");
}

#[tokio::test]
async fn load_energy_is_recorded_separately_and_conserved() {
    let app = TestApp::start_fake(&on_demand("smol")).await;
    assert_eq!(app.chat(&short("smol")).await.status, 200);
    app.until_logged(1).await;
    let books = app.energy();
    let load: u64 = books.devices.iter().map(|device| device.account.load.0).sum();
    assert!(load > 0, "{books:?}");
    assert_eq!(books.conservation_error().0, 0);
    for device in &books.devices {
        let loads: u64 = device.loads.values().map(|energy| energy.0).sum();
        assert_eq!(loads, device.account.load.0);
    }
    let loaded = metric(&app, "wattgate_model_load_energy_joules_total{model=\"smol\"}").await;
    assert!((loaded - load as f64 / 1e6).abs() < 1e-6, "{loaded} {load}");
}

#[tokio::test]
async fn an_idle_model_is_evicted_and_a_busy_one_is_not() {
    let app = one_at_a_time(&["one", "two"], "load_timeout_ms = 4000").await;
    assert_eq!(app.chat(&short("one")).await.status, 200);
    let engine = pid(&app, "one").unwrap();
    // Idle: the model is evicted, with its process and memory.
    assert_eq!(app.chat(&short("two")).await.status, 200);
    assert_eq!(state(&app, "one").await, "unloaded");
    assert!(test_kill_process(engine).is_err(), "its process is gone");
    assert_eq!(
        count(&app, "wattgate_model_unloads_total{model=\"one\",reason=\"evicted\"}").await,
        1
    );
    assert_eq!(count(&app, "wattgate_model_resident_bytes{model=\"one\"}").await, 0);
    // Busy: the model stays, and the request that needs its memory gets a Retry-After.
    let mut story = app.send("/v1/chat/completions", &long("two")).await;
    assert!(story.chunk().await.unwrap().is_some());
    let reply = app.chat(&short("one")).await;
    assert_eq!(reply.error(), (503, "api_error", "not_loaded"), "{}", reply.text);
    assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert!(story.chunk().await.unwrap().is_some(), "the story goes on");
    assert_eq!(state(&app, "two").await, "loaded");
    // Once the client of the story disconnects, the next request loads its model.
    drop(story);
    eventually(|| async { (app.chat(&short("one")).await.status == 200).then_some(()) }).await;
}

#[tokio::test]
async fn a_request_waiting_for_memory_is_answered_once_the_busy_model_is_idle() {
    let app = one_at_a_time(&["one", "two"], "").await;
    let mut request = long("one");
    request["max_tokens"] = json!(64);
    let mut story = app.send("/v1/chat/completions", &request).await;
    assert!(story.chunk().await.unwrap().is_some());
    let rest = async { while story.chunk().await.unwrap().is_some() {} };
    let other = short("two");
    let (reply, ()) = tokio::join!(app.chat(&other), rest);
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(
        (state(&app, "one").await, state(&app, "two").await),
        ("unloaded".into(), "loaded".into())
    );
}

#[tokio::test]
async fn a_model_larger_than_the_memory_budget_evicts_nothing() {
    let upstream = MockUpstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let large = header_only(folder.path());
    let config = format!(
        "[engines]\nmemory_budget_mib = 50\n{}{}",
        model_at(&large, "smol", "on_demand", ""),
        cloud_model("cloud", 3.0, &upstream)
    );
    let app = TestApp::start(&config).await;
    let reply = app.chat(&short("smol")).await;
    assert_eq!(reply.status, 503, "{}", reply.text);
    assert_eq!(app.chat(&short("auto")).await.receipt()["model"], "cloud");
    until_state(&app, "smol", "down").await;
}

#[tokio::test]
async fn an_idle_model_is_unloaded_at_break_even_and_a_preloaded_one_is_not() {
    // Idle power so high that break-even is below a second: the configured minimum decides.
    let config = format!(
        "[engines]\nunload_after_min_s = 1\nunload_after_max_s = 3600\nwarm_watts_per_gib = 9000.0\n{}{}",
        model("kept", "preload", ""),
        on_demand("smol")
    );
    let app = TestApp::start_fake(&config).await;
    app.until_loaded("kept").await;
    assert_eq!(app.chat(&short("smol")).await.status, 200);
    until_state(&app, "smol", "unloaded").await;
    let unloads = "wattgate_model_unloads_total{model=\"smol\",reason=\"idle\"}";
    eventually(|| async { (metric(&app, unloads).await > 0.5).then_some(()) }).await;
    assert_eq!(state(&app, "kept").await, "loaded");
    assert_eq!(app.chat(&short("smol")).await.status, 200, "and it comes again");
}

#[tokio::test]
async fn a_crashed_on_demand_model_restarts_only_on_request() {
    let app = TestApp::start_fake(&on_demand("smol")).await;
    assert_eq!(app.chat(&short("smol")).await.status, 200);
    let engine = pid(&app, "smol").unwrap();
    kill_process(engine, Signal::KILL).unwrap();
    eventually(|| async { (restarts(&app, "smol") == 1).then_some(()) }).await;
    until_state(&app, "smol", "unloaded").await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(pid(&app, "smol").is_none(), "nobody has asked for it");
    assert_eq!(app.chat(&short("smol")).await.status, 200);
    assert_ne!(pid(&app, "smol"), Some(engine));
}

#[tokio::test]
async fn an_operator_loads_and_unloads() {
    let app = TestApp::start_fake(&on_demand("smol")).await;
    let loaded = order(&app, "smol/load").await;
    assert_eq!((loaded.status, &loaded.json["state"]), (200, &json!("loaded")), "{}", loaded.text);
    assert!(loaded.json["memory"]["resident_bytes"].as_u64() > Some(1 << 20), "{}", loaded.text);
    assert_eq!(order(&app, "smol/load").await.status, 200, "again changes nothing");
    let engine = pid(&app, "smol").unwrap();
    let mut story = app.send("/v1/chat/completions", &long("smol")).await;
    assert!(story.chunk().await.unwrap().is_some());
    let busy = order(&app, "smol/unload").await;
    assert_eq!(busy.error(), (409, "invalid_request_error", "model_busy"), "{}", busy.text);
    assert!(story.chunk().await.unwrap().is_some(), "the story goes on");
    // The client disconnects while the unload waits for its answer.
    let drained = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(story);
    };
    let (unloaded, ()) = tokio::join!(order(&app, "smol/unload?drain=true"), drained);
    assert_eq!((unloaded.status, &unloaded.json["state"]), (200, &json!("unloaded")));
    assert!(test_kill_process(engine).is_err(), "its process is gone");
    assert_eq!(order(&app, "smol/unload").await.status, 200, "again changes nothing");
    assert_eq!(app.chat(&short("smol")).await.status, 200, "a request loads it again");
}

#[tokio::test]
async fn invalid_admin_actions_are_refused() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start_fake(&cloud_model("cloud", 3.0, &upstream)).await;
    let cases = [
        ("cloud/load", (400, "invalid_request_error", "invalid_value")),
        ("nobody/load", (404, "invalid_request_error", "model_not_found")),
        ("cloud/explode", (404, "invalid_request_error", "unknown_path")),
        ("cloud/unload?drain=maybe", (400, "invalid_request_error", "invalid_value")),
    ];
    for (path, expected) in cases {
        let reply = order(&app, path).await;
        assert_eq!(reply.error(), expected, "{path}: {}", reply.text);
    }
    let request = app.request("/admin/models/cloud/load").header("x-forwarded-for", "10.0.0.1");
    let reply = Reply::of(request.send().await.unwrap()).await;
    assert_eq!(reply.error(), (403, "permission_error", "not_local"), "{}", reply.text);
    assert_eq!(app.get("/admin/models/cloud/load").await.status, 405);
}

#[tokio::test]
async fn a_failed_load_on_demand_reports_its_cause() {
    let dir = tempfile::tempdir().unwrap();
    let corrupt = dir.path().join("corrupt.gguf");
    std::fs::write(&corrupt, b"GGUF\x03\0\0\0 and then nonsense").unwrap();
    let config = model_at(&corrupt, "smol", "on_demand", "");
    let app = TestApp::start(&config).await;
    let reply = app.chat(&short("smol")).await;
    assert_eq!(reply.error(), (503, "api_error", "unavailable"), "{}", reply.text);
    assert!(reply.text.contains("could not be loaded"), "{}", reply.text);
    assert_eq!(state(&app, "smol").await, "down");
    assert_eq!(order(&app, "smol/load").await.error().2, "load_failed");
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn engine_options_reach_llama_cpp() {
    let options = [
        "flash_attention = \"on\"\nkv_type = \"q8_0\"\nmmap = false",
        "flash_attention = \"on\"\nkv_type = \"q4_0\"",
        "flash_attention = \"off\"\nthreads = 1",
    ];
    for (number, extra) in options.iter().enumerate() {
        let app = TestApp::start(&model_at(&model_path(), "smol", "on_demand", extra)).await;
        let reply = app.chat(&short("smol")).await;
        assert_eq!(reply.status, 200, "{number}: {}", reply.text);
        assert_eq!(app.stop().await.len(), 1);
    }
    // An invalid adapter is refused by llama.cpp; the error has the engine's words.
    let extra = format!("lora = \"{}\"", model_path().display());
    let app = TestApp::start(&model_at(&model_path(), "smol", "on_demand", &extra)).await;
    let reply = app.chat(&short("smol")).await;
    assert_eq!(reply.status, 503, "{}", reply.text);
    assert!(reply.text.contains("LoRA adapter"), "{}", reply.text);
}

#[tokio::test]
async fn a_disconnect_before_the_load_is_recorded_at_once_without_work() {
    let app = one_at_a_time(&["smol", "twin"], "").await;
    let mut busy = app.send("/v1/chat/completions", &long("smol")).await;
    assert!(busy.chunk().await.unwrap().is_some());
    // There is no memory for the twin while the other one answers.
    app.leave("/v1/chat/completions", &short("twin"), app.until_in_flight("twin", 1)).await;
    let left = std::time::Instant::now();
    let records = app.until_logged(1).await;
    assert!(left.elapsed() < Duration::from_secs(15), "it waited for a work report");
    assert_eq!(records[0].outcome.label(), "cancelled");
    assert_nothing_spent(&records[0]);
    late(&app, "twin", 200).await;
    assert_nothing_spent(&app.until_logged(2).await[1]);
    drop(busy);
}

#[tokio::test]
async fn an_engine_does_not_see_the_gateways_environment() {
    let app = TestApp::start_fake(&model("smol", "preload", "")).await;
    app.until_loaded("smol").await;
    let pid = pid(&app, "smol").unwrap().as_raw_nonzero();
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "cargo sets it for tests");
    assert!(environment.contains("OMP_WAIT_POLICY=") && !environment.contains("CARGO_"));
}

#[tokio::test]
async fn a_model_that_is_being_loaded_says_when_to_come_back() {
    let fake = FakeModel::new("preloads_slowly", "load_ms = 2000");
    let app = TestApp::start_fake(&model_at(fake.path(), "smol", "preload", "")).await;
    for request in [short("smol"), short("auto"), long("auto")] {
        let early = app.chat(&request).await;
        assert_eq!(early.error(), (503, "api_error", "no_candidate"), "{}", early.text);
        let wait: u64 = early.header("retry-after").parse().expect("a number of seconds");
        assert!((1..60).contains(&wait), "{wait}");
    }
    app.until_loaded("smol").await;
    assert_eq!(app.chat(&short("smol")).await.status, 200);
}

#[tokio::test]
async fn a_deadline_during_a_load_costs_the_request_nothing_and_the_load_is_recorded() {
    let fake = FakeModel::new("slow_load", "load_ms = 3000");
    let app = TestApp::start_fake(&model_at(fake.path(), "smol", "on_demand", "")).await;
    let request = short("smol");
    let asking = app.chat(&request);
    let stopping = async {
        let started =
            engine_state(&app, "smol").wait_for(|state| state.pid.is_some()).await.map(drop);
        started.unwrap();
        late(&app, "smol", 300).await;
    };
    tokio::select! {
        reply = asking => panic!("answered during the load: {}", reply.text),
        () = stopping => {}
    }
    let records = app.until_logged(2).await;
    let mut outcomes: Vec<_> = records.iter().map(|record| record.outcome.label()).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["cancelled", "failed"]);
    records.iter().for_each(assert_nothing_spent);
    until_state(&app, "smol", "loaded").await;
    eventually(|| async {
        let books = app.energy();
        let load: u64 = books.devices.iter().map(|device| device.account.load.0).sum();
        assert_eq!((books.conservation_error().0, books.unknown_settlements), (0, 0));
        (load > 0).then_some(())
    })
    .await;
}

/// Sends a request whose deadline passes before the model is loaded.
async fn late(app: &TestApp, model: &str, deadline_ms: u64) {
    let asking = app.request("/v1/chat/completions");
    let asking = asking.header("x-wattgate-deadline-ms", deadline_ms.to_string());
    let reply = Reply::of(asking.json(&short(model)).send().await.unwrap()).await;
    assert_eq!(reply.error(), (504, "api_error", "deadline_exceeded"), "{}", reply.text);
}

fn assert_nothing_spent(record: &Record) {
    let energy = record.receipt.energy.unwrap();
    assert!(energy.joules.unwrap().0.abs() < f64::EPSILON && energy.is_final, "{energy:?}");
}
