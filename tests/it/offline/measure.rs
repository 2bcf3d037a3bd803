//! `wattgate measure` as a process, with the real small model, a fake one and a mock upstream.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use wattgate::energy::{Hardware, Profile, Quality, Tokens};
use wattgate::measure::calibrate::{self, Load};
use wattgate::measure::wall::WallMeter;
use wattgate::measure::{Gateway, scrape};

use crate::rig::app::{TestApp, ask, client, cloud_model, eventually, records};
use crate::rig::local_models::{fake_smol, smol};
use crate::rig::mock_upstream::{MockUpstream, Mode};
use crate::rig::rapl::Package;
use crate::rig::serving::Serving;

/// A folder with a config and a suite of `count` questions; a mock upstream, which echoes, gets
/// half of them right.
fn folder(config: &str, count: usize) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.toml"), config).unwrap();
    let lines = (0..count).map(|number| {
        let answer = if number % 2 == 0 { "blue" } else { "nobody says this" };
        let prompt = format!("Is it {}blue?", "really ".repeat(number % 12));
        json!({"id": format!("q{number}"), "prompt": prompt, "domain": "colours", "difficulty": 1 + number % 3,
            "check": {"contains": [answer]}})
        .to_string()
    });
    fs::write(dir.path().join("own.jsonl"), lines.collect::<Vec<_>>().join("\n")).unwrap();
    dir
}

fn measure(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
    command.current_dir(dir).arg("measure").args(["--out", "run"]).args(arguments).output().unwrap()
}

fn result(output: &Output) -> Value {
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{complaints}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_model_is_graded_and_a_killed_run_resumed() {
    let upstream = MockUpstream::start().await;
    let dir = folder(&cloud_model("cloud", 1.0, &upstream), 24);
    let arguments = ["--suite", "own.jsonl", "--warmup", "1", "--batch", "4", "--json"];
    let summary = result(&measure(dir.path(), &arguments));
    let results = summary["results"].as_array().unwrap();
    assert_eq!(results.len(), 2, "alone and four at a time");
    for (found, batch) in results.iter().zip([1, 4]) {
        assert_eq!(
            (&found["batch"], &found["requests"], &found["failed"]),
            (&json!(batch), &json!(24), &json!(0))
        );
        assert_eq!(
            (&found["accuracy"]["value"], &found["quality"]),
            (&json!(0.5), &json!("assumed"))
        );
        let ratio = |name: &str| found[name]["value"].as_f64().unwrap();
        assert!((ratio("ipj") - 0.5 / ratio("joules")).abs() < 1e-9);
        assert!((ratio("ipw") - 0.5 / ratio("watts")).abs() < 1e-9);
        assert!(
            found["ipj"]["low"].as_f64() < Some(ratio("ipj"))
                && found["ipj"]["high"].as_f64() > Some(ratio("ipj"))
        );
    }
    let page = fs::read_to_string(dir.path().join("run/report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("assumed"));
    // 48 questions and a warm-up; then ten rows and a half are lost.
    assert_eq!(upstream.requests().len(), 49);
    let rows = dir.path().join("run/items.jsonl");
    let text = fs::read_to_string(&rows).unwrap();
    let kept: Vec<&str> = text.lines().take(37).collect();
    fs::write(&rows, kept.join("\n") + "\n{\"model\":\"clo").unwrap();
    assert!(refusal(&measure(dir.path(), &arguments)).contains("--resume"));
    let resumed = result(&measure(dir.path(), &[&arguments[..], &["--resume"]].concat()));
    assert_eq!(upstream.requests().len(), 49 + 11 + 1);
    assert_eq!(
        resumed["results"][1]["accuracy"]["value"],
        summary["results"][1]["accuracy"]["value"]
    );
    assert_eq!(fs::read_to_string(&rows).unwrap().lines().count(), 48);
    let other = measure(
        dir.path(),
        &["--suite", "own.jsonl", "--batch", "4", "--resume", "--max-tokens", "5"],
    );
    assert!(refusal(&other).contains("another --max-tokens"));
}

/// Starts a run over 200 questions, stops it by `signal` in the middle, resumes it, and returns its
/// summary.
async fn stopped_by(signal: &str, upstream: &MockUpstream) -> Value {
    let dir = folder(&cloud_model("cloud", 1.0, upstream), 200);
    let arguments = ["--suite", "own.jsonl", "--out", "run", "--json"];
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_wattgate"));
    command.current_dir(dir.path()).arg("measure").args(arguments).stderr(Stdio::piped());
    let child = command.kill_on_drop(true).spawn().unwrap();
    let rows = || fs::read_to_string(dir.path().join("run/items.jsonl")).unwrap_or_default();
    eventually(|| async { (rows().lines().count() > 4).then_some(()) }).await;
    // From here on the run waits for an answer, so that the signal comes in the middle.
    upstream.respond_with(Mode::HangBeforeHeaders);
    upstream.until_open(1).await;
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    let output = child.wait_with_output().await.unwrap();
    upstream.respond_with(Mode::Answer);
    let complaint = String::from_utf8_lossy(&output.stderr);
    let killed = signal == "-KILL";
    assert!(
        killed || output.status.code() == Some(1) && complaint.contains("--resume"),
        "{complaint}"
    );
    assert!(rows().lines().count() < 200);
    result(&measure(dir.path(), &["--suite", "own.jsonl", "--json", "--resume"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_or_killed_run_gives_the_same_result() {
    let upstream = MockUpstream::start().await;
    let dir = folder(&cloud_model("cloud", 1.0, &upstream), 200);
    let whole = result(&measure(dir.path(), &["--suite", "own.jsonl", "--json"]));
    for signal in ["-INT", "-KILL"] {
        let resumed = stopped_by(signal, &upstream).await;
        // The figures that do not depend on the clock.
        for figure in ["requests", "accuracy", "joules", "ipj", "by_domain", "by_difficulty"] {
            let of = |summary: &Value| {
                let mut found = summary["results"][0][figure].clone();
                for part in found.as_array_mut().into_iter().flatten() {
                    part.as_object_mut().unwrap().remove("ipw");
                }
                found
            };
            assert_eq!(of(&resumed), of(&whole), "{signal}: {figure}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_local_model_is_profiled_and_the_gateway_predicts_from_it() {
    let dir = folder(&smol("slots = 4"), 40);
    let output = measure(
        dir.path(),
        &["--suite", "own.jsonl", "--batch", "4", "--max-tokens", "12", "--logprobs", "--json"],
    );
    let summary = result(&output);
    let alone = &summary["results"][0];
    assert_eq!((&alone["requests"], &alone["energy_unknown"]), (&json!(40), &json!(0)));
    assert!(alone["perplexity"]["value"].as_f64() >= Some(1.0), "{alone}");
    assert!(alone["load_joules"].as_f64() > Some(0.0), "{alone}");
    let path = dir.path().join("run/profile.toml");
    let profile = Profile::load(&path).unwrap();
    let model = &profile.models["smol"];
    let joules = model.alone.joules.unwrap();
    let tokens = Tokens { prefill: 40, decode: 12 };
    assert!(joules.of(tokens) > 0.0 && model.batched.is_some_and(|cost| cost.batch == 4));
    // A gateway with that profile predicts from it before the first request.
    let config = format!("[energy]\nprofile = {:?}\n{}", path.to_str().unwrap(), smol(""));
    let app = TestApp::start(&config).await;
    app.until_loaded("smol").await;
    let mut request = ask("smol", "Is it really really blue?");
    request["max_tokens"] = json!(12);
    let candidate = app.post("/v1/route", &request).await.json["candidates"][0].clone();
    let features = wattgate::routing::Features::of(&wattgate::openai::Request::Chat(
        serde_json::from_str(&request.to_string()).unwrap(),
    ));
    let tokens =
        Tokens { prefill: features.prompt_tokens.into(), decode: features.output_tokens.into() };
    let predicted = candidate["joules"].as_f64().unwrap();
    assert!((predicted / joules.of(tokens) - 1.0).abs() < 1e-6, "{predicted} {joules:?}");
    let first_token_ms = candidate["ttft_ms"].as_f64().unwrap();
    let seconds = model.alone.seconds.of(Tokens { decode: 1, ..tokens });
    assert!((first_token_ms / seconds / 1e3 - 1.0).abs() < 1e-6, "{first_token_ms} {seconds}");
    app.stop().await;
    a_profile_of_something_else_is_told(&path, &smol("")).await;
}

/// A profile with other weights under the same name, and one of another machine.
async fn a_profile_of_something_else_is_told(path: &Path, smol: &str) {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("[energy]\nprofile = {:?}\n{smol}", path.to_str().unwrap());
    fs::write(dir.path().join("config.toml"), &config).unwrap();
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
        let output = command.current_dir(dir.path()).arg("check").output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(!check().contains("energy.profile"), "{}", check());
    let mut profile = Profile::load(path).unwrap();
    profile.models.get_mut("smol").unwrap().file.as_mut().unwrap().bytes += 1;
    profile.save(path).unwrap();
    assert!(check().contains("smol was measured with other weights"), "{}", check());
    profile.machine = Some(Hardware { processor: "Abacus".to_owned(), cpus: 1 });
    profile.save(path).unwrap();
    assert!(check().contains("another machine (Abacus (1 logical CPUs)"), "{}", check());
    let app = TestApp::start(&config).await;
    app.until_loaded("smol").await;
    let candidate = app.post("/v1/route", &ask("smol", "Hi")).await.json["candidates"][0].clone();
    assert_eq!(candidate["ttft_ms"], Value::Null, "nothing of it is used: {candidate}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_of_a_traffic_log_can_be_measured_again() {
    let upstream = MockUpstream::start().await;
    let model = cloud_model("cloud", 1.0, &upstream);
    let serving = Serving::start(&format!("[traffic]\nprompts = \"full\"\n{model}"));
    for prompt in ["one", "two"] {
        let url = format!("{}/v1/chat/completions", serving.url);
        client().post(url).json(&ask("cloud", prompt)).send().await.unwrap();
    }
    let log = serving.dir.path().join("data/traffic");
    eventually(|| async { (records(&log).len() == 2).then_some(()) }).await;
    let dir = serving.kill();
    fs::write(dir.path().join("config.toml"), &model).unwrap();
    let summary =
        result(&measure(dir.path(), &["--suite", "data/traffic", "--warmup", "0", "--json"]));
    let found = &summary["results"][0];
    assert_eq!((&found["requests"], &found["accuracy"]), (&json!(2), &Value::Null));
    assert!(found["joules"]["value"].as_f64() > Some(0.0));
    let rows = fs::read_to_string(dir.path().join("run/items.jsonl")).unwrap();
    assert!(!rows.contains("you said"), "answers to somebody's prompts are not kept");
}

#[tokio::test]
async fn runs_that_cannot_be_measured_are_refused_with_a_remedy() {
    let upstream = MockUpstream::start().await;
    let away = "[models.away.llama]\nsource = \"file:nowhere.gguf\"\n";
    let dir = folder(&(cloud_model("cloud", 1.0, &upstream) + &fake_smol("slots = 2") + away), 3);
    for (arguments, complaint) in [
        (&["--models", "clout"][..], "its models: cloud, smol, away"),
        (&["--models", "away"], "`wattgate models pull away` downloads"),
        (&["--models", "smol", "--batch", "8"], "slots = 8"),
        (&["--suite", "none.jsonl"], "none.jsonl"),
        (&["--models", "cloud", "--calibrate", "wall.csv"], "needs a local model"),
    ] {
        let refused = refusal(&measure(dir.path(), arguments));
        assert!(refused.contains(complaint), "{refused}");
    }
}

/// Warm-up asked the suite's first questions, and repeats came from the slots' caches: IPJ rose by
/// a factor of four.
#[tokio::test(flavor = "multi_thread")]
async fn no_prompt_comes_from_a_cache_unless_asked() {
    let sysfs = tempfile::tempdir().unwrap();
    let _package = Package::start(sysfs.path(), 40);
    let energy = format!("[energy]\nsensors = \"rapl\"\nsysfs_root = {:?}\n", sysfs.path());
    let dir = folder(&format!("{energy}{}", fake_smol("slots = 4")), 8);
    let cached = |out: &str, more: &[&str]| {
        let arguments =
            ["--suite", "own.jsonl", "--repeats", "3", "--batch", "2", "--out", out, "--json"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
        let command = command.current_dir(dir.path()).arg("measure").args(arguments).args(more);
        let found = result(&command.output().unwrap())["results"].clone();
        let results = found.as_array().unwrap().clone();
        assert!(results[0]["over_repeats"]["joules"].is_number(), "{found}");
        assert!(results[0]["with_idle"]["ipj"]["value"].is_number(), "{found}");
        results.iter().map(|one| one["cached_tokens"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(cached("cold", &[]), [0.0, 0.0]);
    assert!(cached("warm", &["--warm-cache"])[0] > 0.0);
}

/// A mock plug that reports 30 W plus twice the power of the package, in the format of a
/// second-generation Shelly.
async fn plug(package: &Package, tasks: &mut JoinSet<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let status = async |State(watts): State<Arc<AtomicU64>>| {
        let watts = 30 + 2 * watts.load(Ordering::Relaxed);
        axum::Json(json!({"id": 0, "apower": watts, "aenergy": {"total": 5.0}}))
    };
    let router = Router::new()
        .route("/rpc/Switch.GetStatus", get(status))
        .with_state(Arc::clone(&package.watts));
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_is_calibrated_against_a_plug_and_labelled_so() {
    let app = TestApp::start_fake(&fake_smol("slots = 2")).await;
    app.until_loaded("smol").await;
    let mut tasks = JoinSet::new();
    let plug = plug(app.package(), &mut tasks).await;
    let meter: WallMeter = format!("shelly:{plug}").parse().unwrap();
    let gateway = Gateway::new(app.url("")).unwrap();
    let (ramp, step) = (Duration::from_secs(1), Duration::from_secs(2));
    // Two steps more than a fit needs: on a loaded machine the plug misses some.
    let load = Load { model: "smol", local: true, levels: &[0, 1, 2, 0, 1, 2], ramp, step };
    let draw =
        |level: u32| app.package().watts.store(20 + 100 * u64::from(level), Ordering::Relaxed);
    let (steps, readings) = calibrate::run(&gateway, load, &meter, &draw).await.unwrap();
    let calibration = calibrate::fit(&steps, &readings, &meter, "2026-11-23".to_owned()).unwrap();
    let band = [calibration.low, calibration.high];
    assert!((1.4..2.8).contains(&calibration.gain), "{calibration:?}");
    app.stop().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("profile.toml");
    Profile { calibration: Some(calibration), ..Profile::default() }.save(&path).unwrap();
    let config = format!("[energy]\nprofile = {:?}\n{}", path.to_str().unwrap(), fake_smol(""));
    let app = TestApp::start_fake(&config).await;
    app.until_loaded("smol").await;
    let reply = app.chat(&crate::rig::local_models::short("smol", "Who wrote Hamlet?")).await;
    let record = app.settled(reply.receipt()["request_id"].as_str().unwrap()).await;
    assert_eq!(record["energy"]["quality"], json!(Quality::Calibrated));
    // The residual band of the fit, not the wide one of the model, and what one tick cannot tell
    // from the time before and after.
    let figure = |name: &str| record["energy"][name].as_f64().unwrap();
    assert!(figure("low") <= figure("joules") * band[0] + 1e-6, "{record}");
    assert!(figure("high") >= figure("joules") * band[1] - 1e-6, "{record}");
    let metrics = app.get("/metrics").await.text;
    let of = |name: &str, label: &str| {
        scrape::sum(&metrics, name, |labels| scrape::has(labels, "quality", label))
    };
    for name in ["wattgate_request_energy_joules_total", "wattgate_device_energy_joules_total"] {
        assert!(of(name, "calibrated") > Some(0.0), "{name}");
        assert_eq!(of(name, "measured"), None, "{name}");
    }
    app.stop().await;
}

#[test]
fn a_missing_profile_is_a_warning_in_check_and_an_error_at_start() {
    let dir = folder(&format!("[energy]\nprofile = \"none.toml\"\n{}", fake_smol("")), 1);
    let run = |command: &str| {
        let mut wattgate = Command::new(env!("CARGO_BIN_EXE_wattgate"));
        let output = wattgate.current_dir(dir.path()).arg(command).output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let (code, said) = run("check");
    assert!(code == Some(0) && said.contains("warning: energy.profile"), "{said}");
    let (code, said) = run("serve");
    assert!(code == Some(1) && said.contains("`wattgate measure` creates one"), "{said}");
}
