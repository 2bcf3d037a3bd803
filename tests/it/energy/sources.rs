//! Reports of `wattgate check --energy` for the machines in `tests/data/sysfs`, and the energy
//! sources of requests.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::Uri;
use axum::routing::get;
use axum::{Json, Router};
use insta::assert_snapshot;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::rig::app::{TestApp, ask, ask_streaming, cloud_model, eventually};
use crate::rig::mock_upstream::{MockUpstream, Mode};

/// Runs `check` on a config that reads `machine` instead of this one. NVML is off, as the machine
/// of the test may have an NVIDIA driver.
fn check(machine: &str, energy: &str, arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let text = format!(
        "[energy]\nsysfs_root = \"tests/data/sysfs/{machine}\"\nproc_root = \"/proc\"\n{energy}\n\
         [energy.nvml]\nenabled = false\n\
         [models.m.openai]\nbase_url = \"http://127.0.0.1:9/v1\"\n"
    );
    std::fs::write(&config, text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_wattgate"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["check", "--energy", "--config"])
        .arg(&config)
        .args(arguments)
        .output()
        .unwrap()
}

fn report(machine: &str) -> String {
    let output = check(machine, "", &[]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && errors.is_empty(), "{machine}: {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[test]
fn the_report_of_each_machine_lists_used_and_skipped_sensors() {
    let machines = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sysfs");
    let mut names: Vec<String> = std::fs::read_dir(machines)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    // In parallel, as watching the counters of a machine takes a while.
    let reports: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = names.iter().map(|name| scope.spawn(|| report(name))).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(names.len() >= 12);
    for (name, report) in names.iter().zip(reports) {
        assert_snapshot!(name.as_str(), report);
    }
}

#[test]
fn the_json_report_has_the_devices_and_their_figures() {
    let output = check("amd-apu-dgpu", "", &["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["sensors"], &report["quality"]), (&"auto".into(), &"measured".into()));
    let device = |name: &str| {
        let devices = report["devices"].as_array().unwrap();
        devices.iter().find(|one| one["device"] == name).unwrap_or_else(|| panic!("{name}"))
    };
    let card = device("amdgpu-0000:03:00.0");
    assert_eq!((&card["used"], &card["place"]), (&true.into(), &"accelerator".into()));
    let watts = card["watts"].as_f64().unwrap();
    assert!((220.9..221.1).contains(&watts), "{watts}");
    assert_eq!(device("package-0")["problem"], "has not moved in 300 ms");
    assert_eq!(device("amd-apu")["why_not"], "rapl already counts the processor");
}

#[test]
fn the_report_names_the_energy_source_of_each_cloud_model() {
    let own = "[models.own.openai]\nbase_url = \"http://127.0.0.1:9/v1\"\nenergy_class = \"large\"\n\
               energy = { joules_per_output_token = 2.0, boundary = \"server\", pue = 1.5 }\n\
               [models.guess.openai]\nbase_url = \"http://127.0.0.1:9/v1\"\nenergy_class = \"small\"\n\
               [energy.carbon]\nzone = \"fra\"\n";
    let output = check("vm", own, &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |model: &str| {
        let found = text.lines().find(|line| line.trim_start().starts_with(model));
        found.unwrap_or_else(|| panic!("{text}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("m "), "m unknown: no energy_class, no figures of your own");
    assert!(line("own ").starts_with("own 0.4 3 (3 to 3) your own (server), the rest class large"));
    assert!(line("guess ").starts_with("guess 0.06 0.25 (0.12 to 1.2) class small, wall, 2026-"));
    assert!(line("guess ").contains("ML.ENERGY"), "{text}");
    assert!(line("Carbon").starts_with("Carbon: FRA, 56 g/kWh, the average of 2023 ("), "{text}");
    let report: Value = serde_json::from_slice(&check("vm", own, &["--json"]).stdout).unwrap();
    let models = report["cloud_models"].as_array().unwrap();
    let guess = models.iter().find(|one| one["model"] == "guess").unwrap();
    assert_eq!(guess["joules_per_output_token"], json!([0.12, 0.25, 1.2]), "{report}");
}

#[test]
fn a_disabled_sensor_kind_is_replaced_by_the_next_best() {
    let output = check("amd-apu-dgpu", "rapl.enabled = false", &["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let used: Vec<&str> = report["devices"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["used"] == true)
        .map(|one| one["device"].as_str().unwrap())
        .collect();
    assert_eq!(used, ["amdgpu-0000:03:00.0", "amd-apu"]);
    assert_eq!(report["quality"], "estimated");
}

#[test]
fn a_required_sensor_kind_that_is_absent_is_refused_with_the_reason() {
    let output = check("vm", "sensors = \"hwmon\"", &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("no driver here shows"), "{text}");
    assert!(text.contains("will not start"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

/// Mock meters of other machines: a Prometheus whose counter grows by 30 J with each query, a
/// Shelly that draws 61.5 W, and a grid of 302 g/kWh.
struct OtherMachines {
    address: SocketAddr,
    _task: JoinSet<()>,
}

impl OtherMachines {
    async fn start() -> Self {
        let joules = Arc::new(AtomicU64::new(1000));
        let counter = move |uri: Uri| async move {
            assert!(uri.query().unwrap().contains("query=sum%28box_joules_total%29"), "{uri}");
            let joules = joules.fetch_add(30, Ordering::Relaxed).to_string();
            let series = json!([{"metric": {}, "value": [1.7e9, joules]}]);
            Json(json!({"status": "success", "data": {"resultType": "vector", "result": series}}))
        };
        let app = Router::new()
            .route("/api/v1/query", get(counter))
            .route("/rpc/Switch.GetStatus", get(|| async { Json(json!({"apower": 61.5})) }))
            .route("/grid", get(|| async { Json(json!({"zone": "DE", "carbonIntensity": 302})) }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, _task: task }
    }
}

#[tokio::test]
async fn a_wall_meter_is_a_reference_next_to_sensors_and_the_total_without_them() {
    let others = OtherMachines::start().await;
    let report = |machine: &'static str, sensors: &'static str| {
        let energy = format!("{sensors}\nwall.url = \"http://{}\"", others.address);
        async move {
            let run = move || check(machine, &energy, &["--json"]);
            let output = tokio::task::spawn_blocking(run).await.unwrap();
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            let devices = report["devices"].as_array().unwrap().clone();
            devices.into_iter().find(|one| one["device"] == "wall").unwrap()
        }
    };
    let beside = report("intel-server", "").await;
    assert!(beside["why_not"].as_str().unwrap().contains("reference"), "{beside}");
    for (machine, sensors) in [("vm", ""), ("intel-server", "sensors = \"wall\"")] {
        let used = report(machine, sensors).await;
        assert_eq!((&used["used"], &used["quality"]), (&true.into(), &"measured".into()), "{used}");
    }
}

/// Waits for the first figure of `gpu-box`: before it, the energy of the machine is unknown.
async fn until_metered(app: &TestApp) {
    eventually(|| async {
        let metrics = app.get("/metrics").await.text;
        let counted = metrics.lines().find_map(|line| {
            let of_box = line.starts_with("wattgate_device_energy_joules_total{device=\"gpu-box\"");
            line.rsplit_once(' ').filter(|_| of_box)?.1.parse::<f64>().ok()
        });
        counted.filter(|joules| *joules >= 30.0).map(drop)
    })
    .await;
}

#[tokio::test]
async fn a_remotely_metered_upstream_is_charged_its_measured_energy() {
    let (others, upstream) = (OtherMachines::start().await, MockUpstream::start().await);
    let config = format!(
        r#"
        [energy]
        cadence_ms = 10
        [energy.prometheus.gpu-box]
        url = "http://{}"
        query = "sum(box_joules_total)"
        models = ["cloud"]
        quality = "measured"
        every_ms = 500
        {}
        {}"#,
        others.address,
        cloud_model("cloud", 3.0, &upstream),
        cloud_model("other", 1.0, &upstream),
    );
    let app = TestApp::start(&config).await;
    until_metered(&app).await;
    let reply = app.chat(&ask("cloud", "What is 2+2?")).await;
    assert_eq!(reply.status, 200);
    let record = app.settled(reply.receipt()["request_id"].as_str().unwrap()).await;
    let attempt = &record["attempts"][0];
    assert_eq!(
        (&attempt["source"], &attempt["quality"]),
        (&json!("prometheus"), &json!("measured")),
        "{attempt}"
    );
    // The part of one query's energy, or of two, in which it worked; all of it is in the band.
    let (joules, high) = (attempt["joules"].as_f64().unwrap(), attempt["high"].as_f64().unwrap());
    assert!(joules > 0.0 && joules <= 60.0 && high >= 30.0, "{attempt}");
    let other = app.chat(&ask("other", "What is 2+2?")).await;
    assert_eq!(other.receipt()["energy"]["source"], "cloud_table");
}

#[tokio::test]
async fn a_judge_on_a_remotely_metered_upstream_is_billed_by_its_meter() {
    let (others, upstream) = (OtherMachines::start().await, MockUpstream::start().await);
    let config = format!(
        r#"
        [energy]
        cadence_ms = 10
        [energy.prometheus.gpu-box]
        url = "http://{}"
        query = "sum(box_joules_total)"
        models = ["judge"]
        quality = "measured"
        every_ms = 500
        [judge]
        share = 1.0
        model = "judge"
        mode = "pointwise"
        {}
        {}"#,
        others.address,
        cloud_model("cloud", 3.0, &upstream),
        cloud_model("judge", 1.0, &upstream),
    );
    let app = TestApp::start(&config).await;
    let overhead = |metrics: &str, source: &str| {
        let of_judge = |line: &&str| {
            line.starts_with("wattgate_request_energy_joules_total{model=\"judge\"")
                && line.contains(&format!("source=\"{source}\""))
        };
        let line = metrics.lines().find(of_judge)?;
        line.rsplit_once(' ')?.1.parse::<f64>().ok()
    };
    until_metered(&app).await;
    app.chat(&ask("cloud", "What is 2+2?")).await;
    let metrics = eventually(|| async {
        let metrics = app.get("/metrics").await.text;
        overhead(&metrics, "prometheus").filter(|joules| *joules > 0.0).map(|_| metrics.clone())
    })
    .await;
    assert_eq!(overhead(&metrics, "cloud_table"), None, "{metrics}");
}

#[tokio::test]
async fn carbon_and_electricity_cost_are_absent_without_grid_and_price() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&cloud_model("cloud", 3.0, &upstream)).await;
    let reply = app.chat(&ask("auto", "hello")).await;
    let receipt = reply.receipt();
    assert!(receipt["carbon"].is_null() && receipt["electricity_dollars"].is_null(), "{receipt}");
    assert!(receipt["candidates"][0]["grams"].is_null());
    assert!(!app.get("/metrics").await.text.contains("wattgate_carbon_grams_total{"));
}

#[tokio::test]
async fn carbon_uses_and_names_the_grid_of_each_model() {
    let upstream = MockUpstream::start().await;
    let config = format!(
        "[energy.carbon]\nzone = \"NOR\"\n[energy.price]\ndollars_per_kwh = 0.3\n{}carbon_zone = \"FRA\"\n{}",
        cloud_model("french", 3.0, &upstream),
        cloud_model("somewhere", 1.0, &upstream),
    );
    let app = TestApp::start(&config).await;
    for (model, zone, quality, grams_per_kwh) in
        [("french", "FRA", "assumed", 56.0), ("somewhere", "world", "assumed", 481.0)]
    {
        let reply = app.chat(&ask(model, "hello")).await;
        let receipt = reply.receipt();
        let carbon = &receipt["carbon"];
        assert_eq!((&carbon["zone"], &carbon["quality"]), (&json!(zone), &json!(quality)));
        let expected = receipt["energy"]["joules"].as_f64().unwrap() / 3.6e6 * grams_per_kwh;
        let grams = carbon["grams"].as_f64().unwrap();
        assert!((grams - expected).abs() < 1e-9, "{receipt}");
        assert_eq!(receipt["electricity_dollars"], 0.0, "the provider's is in its price");
        assert!(receipt["candidates"][0]["grams"].as_f64() > Some(0.0));
    }
    let metrics = app.get("/metrics").await.text;
    assert!(
        metrics.contains(
            r#"wattgate_grid_carbon_grams_per_kilowatt_hour{zone="NOR",basis="year"} 30"#
        ),
        "{metrics}"
    );
    assert!(metrics.contains(r#"wattgate_carbon_grams_total{model="french",route="cloud""#));
}

#[tokio::test]
async fn live_grid_intensity_replaces_the_yearly_average_and_falls_back_to_it() {
    let (others, upstream) = (OtherMachines::start().await, MockUpstream::start().await);
    let config = |path: &str| {
        let url = format!("http://{}{path}", others.address);
        let model = cloud_model("cloud", 3.0, &upstream);
        format!("[energy.carbon]\nzone = \"DEU\"\nlive.url = \"{url}\"\n{model}")
    };
    let gauge = async |config: String, sample: &str| {
        let app = TestApp::start(&config).await;
        eventually(|| async { app.get("/metrics").await.text.contains(sample).then_some(()) })
            .await;
    };
    let name = "wattgate_grid_carbon_grams_per_kilowatt_hour";
    gauge(config("/grid"), &format!("{name}{{zone=\"DEU\",basis=\"live\"}} 302")).await;
    gauge(config("/gone"), &format!("{name}{{zone=\"DEU\",basis=\"year\"}} 381")).await;
}

#[tokio::test]
async fn energy_in_a_stream_comment_of_an_upstream_overrides_the_table() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&cloud_model("cloud", 3.0, &upstream)).await;
    upstream.respond_with(Mode::Verbatim(
        200,
        "text/event-stream",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}\n\n\
         : energy {\"energy_joules\":4.5,\"attribution_method\":\"prorated\"}\n\n\
         data: [DONE]\n\n",
    ));
    let sse = app.stream(&ask_streaming("auto", "hello")).await;
    let receipt = sse.receipt();
    let energy = &receipt["energy"];
    assert_eq!((&energy["joules"], &energy["source"]), (&json!(4.5), &json!("upstream")));
    assert_eq!(energy["quality"], "estimated", "a claim is never measured");
}

#[tokio::test]
async fn an_image_prompt_has_unknown_energy_and_not_zero() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&cloud_model("cloud", 3.0, &upstream)).await;
    let mut request = ask("auto", "");
    request["messages"][0]["content"] = json!([
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]);
    let reply = app.chat(&request).await;
    assert_eq!(reply.status, 200);
    let receipt = reply.receipt();
    assert!(receipt["energy"]["joules"].is_null(), "{receipt}");
    assert!(receipt["candidates"][0]["joules"].is_null(), "{receipt}");
}

/// Audio tokens must not be priced as tokens of text.
#[tokio::test]
async fn an_audio_answer_has_unknown_energy_and_excludes_text_models() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&cloud_model("cloud", 3.0, &upstream)).await;
    let mut request = ask("auto", "Say hello.");
    request["modalities"] = json!(["text", "audio"]);
    let spoken = app.chat(&request).await;
    assert!(spoken.receipt()["energy"]["joules"].is_null(), "{}", spoken.text);
    request["modalities"] = json!(["text"]);
    let written = app.chat(&request).await;
    assert!(written.receipt()["energy"]["joules"].is_number(), "{}", written.text);
}

#[tokio::test]
async fn configured_energy_figures_override_the_table() {
    let upstream = MockUpstream::start().await;
    let config = format!(
        "{}[models.cloud.openai.energy]\njoules_per_input_token = 0.0\njoules_per_output_token = 2.0\nboundary = \"server\"\npue = 1.5\n",
        cloud_model("cloud", 3.0, &upstream)
    );
    let app = TestApp::start(&config).await;
    let reply = app.chat(&ask("auto", "hello you")).await;
    let tokens = reply.json["usage"]["completion_tokens"].as_f64().unwrap();
    assert_eq!(reply.receipt()["energy"]["joules"], 3.0 * tokens);
}
