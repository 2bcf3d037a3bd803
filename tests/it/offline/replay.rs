//! `wattgate replay` over a log that a gateway wrote.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::rig::app::{ask, client, cloud_model, eventually, records};
use crate::rig::mock_upstream::MockUpstream;
use crate::rig::serving::Serving;

const LOG: &str = "data/traffic";

/// The folder of a gateway that answered four requests with the small model and one with the large
/// model, which it named.
async fn served(upstream: &MockUpstream) -> TempDir {
    let config = "[policies.default]\nfloor = 0.5\n[policies.strict]\nfloor = 0.9\n".to_owned()
        + &cloud_model("small", 1.0, upstream)
        + &cloud_model("large", 6.0, upstream).replace("\"small\"", "\"frontier\"");
    let serving = Serving::start(&config);
    let client = client();
    for (turn, model) in ["auto", "auto", "auto", "auto", "large"].into_iter().enumerate() {
        let url = format!("{}/v1/chat/completions", serving.url);
        let response =
            client.post(url).json(&ask(model, &format!("What is {turn}+2?"))).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }
    let log = serving.dir.path().join(LOG);
    eventually(|| async { (records(&log).len() == 5).then_some(()) }).await;
    serving.kill()
}

fn replay(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
    command.current_dir(dir).arg("replay").args(arguments).output().unwrap()
}

fn complaint(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn policies_are_compared_over_the_log() {
    let upstream = MockUpstream::start().await;
    let dir = served(&upstream).await;
    let output = replay(dir.path(), &["--log", LOG, "--json"]);
    assert_eq!(complaint(&output), (Some(0), String::new()));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&result["requests"], &result["reproduced"]), (&5.into(), &5.into()));
    let row = |name: &str| {
        let rows = result["policies"].as_array().unwrap();
        rows.iter().find(|row| row["policy"] == name).unwrap_or_else(|| panic!("{name}")).clone()
    };
    // The default policy is the one that ran, so it takes exactly what was logged.
    let (logged, default) = (row("logged"), row("default"));
    assert_eq!(logged["energy"], default["energy"]);
    assert_eq!(logged["dollars"], default["dollars"]);
    assert_eq!(default["energy"]["metered_requests"], 5);
    // The strict policy sends the other four to the large model, for which the log has no answers.
    let strict = row("strict");
    assert_eq!(strict["energy"]["predicted_requests"], 4);
    assert!(strict["energy"]["joules"].as_f64() > logged["energy"]["joules"].as_f64());
    assert!(strict["expected_quality"].as_f64() > logged["expected_quality"].as_f64());
    assert_eq!(
        (&row("local-only")["unanswered"], &row("cloud-only")["unanswered"]),
        (&5.into(), &0.into())
    );

    let output = replay(dir.path(), &["--log", LOG, "--policy", "strict"]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("\nstrict") || table.contains("\n strict"), "{table}");
    assert!(!table.contains("default") && table.contains("5 of 5"), "{table}");
}

/// The folder of a gateway whose policy explores: 240 judged requests to two models.
async fn explored(upstream: &MockUpstream) -> TempDir {
    let config = "[policies.default]\nfloor = 0.5\nexplore = 0.5\n[policies.strict]\nfloor = 0.9\n"
        .to_owned()
        + &cloud_model("small", 1.0, upstream)
        + &cloud_model("large", 6.0, upstream).replace("\"small\"", "\"frontier\"");
    let serving = Serving::start(&config);
    let client = client();
    for turn in 0..240 {
        let body = ask("auto", &format!("What is {turn}+2?"));
        let url = format!("{}/v1/chat/completions", serving.url);
        let answer: Value =
            client.post(url).json(&body).send().await.unwrap().json().await.unwrap();
        let receipt = &answer["wattgate"];
        // The large model is always right, the small one every second time.
        let score = if receipt["model"] == "large" { 1.0 } else { f64::from(turn % 2) };
        let verdict = serde_json::json!({"request_id": receipt["request_id"], "score": score});
        let url = format!("{}/v1/feedback", serving.url);
        let response = client.post(url).json(&verdict).send().await.unwrap();
        assert!(response.status().is_success(), "{}", response.text().await.unwrap());
    }
    let log = serving.dir.path().join(LOG);
    eventually(|| async { (records(&log).len() >= 240).then_some(()) }).await;
    serving.kill()
}

#[tokio::test]
async fn a_log_that_explored_supports_an_estimate_of_another_policy() {
    let upstream = MockUpstream::start().await;
    let dir = explored(&upstream).await;
    let output = replay(dir.path(), &["--log", LOG, "--json"]);
    assert_eq!(complaint(&output), (Some(0), String::new()));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = result["policies"].as_array().unwrap();
    let quality = |policy: &str| {
        let row = rows.iter().find(|row| row["policy"] == policy).unwrap();
        row["estimates"].as_array().unwrap()[0].clone()
    };
    let dr = |policy: &str| {
        let estimates = quality(policy)["estimates"].as_array().unwrap().clone();
        estimates.into_iter().find(|one| one["estimator"] == "dr").unwrap()
    };
    // The strict policy asks the large model, which was right whenever it was drawn.
    let interval = dr("strict")["interval"].clone();
    assert!(interval["low"].as_f64() <= Some(1.0) && interval["high"].as_f64() >= Some(0.95));
    assert!(dr("logged")["interval"]["high"].as_f64() < Some(0.85));
    let one = quality("strict");
    assert_eq!((&one["quantity"], &one["support"]["requests"]), (&"quality".into(), &240.into()));
    // The log drew the large model for a quarter of the requests.
    let disagreement = one["support"]["disagreement"].as_f64().unwrap();
    assert!((disagreement - 0.75).abs() < 0.01, "{one}");
    let same = quality("default");
    assert_eq!(
        (&same["verdict"]["verdict"], &same["support"]["disagreement"]),
        (&"supported".into(), &0.0.into())
    );

    let output = replay(dir.path(), &["--log", LOG, "--diff", "default", "strict"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("of 240 requests differ") && text.contains("small -> large"), "{text}");
}

#[tokio::test]
async fn without_exploration_there_is_no_verdict_and_strict_fails() {
    let upstream = MockUpstream::start().await;
    let dir = served(&upstream).await;
    let output = replay(dir.path(), &["--log", LOG, "--policy", "strict", "--strict"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains(
            "strict: no verdict on joules, dollars: the log could not have made 80 % of its choices"
        ),
        "{text}"
    );
    assert!(text.contains("served with `explore = 0.05` would give a verdict"), "{text}");
}

#[test]
fn the_papers_table_needs_no_log_and_no_config() {
    let dir = TempDir::new().unwrap();
    let output = replay(dir.path(), &["--paper", "--json"]);
    assert_eq!(complaint(&output), (Some(0), String::new()));
    let table: Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = &table["rows"][0];
    assert_eq!((&row["router"], &row["accounting"]), (&"oracle".into(), &"paper".into()));
    assert!((row["energy_pct"].as_f64().unwrap() + 80.4).abs() < 0.2, "{row}");
}

#[tokio::test]
async fn bad_lines_are_reported_and_torn_lines_counted() {
    let upstream = MockUpstream::start().await;
    let dir = served(&upstream).await;
    let file = std::fs::read_dir(dir.path().join(LOG)).unwrap().next().unwrap().unwrap().path();
    let mut file = std::fs::OpenOptions::new().append(true).open(file).unwrap();
    file.write_all(b"{\"version\":1}\n{\"version\":1,\"unix_").unwrap();
    let output = replay(dir.path(), &["--log", LOG, "--json"]);
    let (code, complaints) = complaint(&output);
    assert_eq!(code, Some(0));
    assert!(complaints.contains(".jsonl:6: missing field"), "{complaints}");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let counts = [&result["requests"], &result["bad_lines"], &result["torn_lines"]];
    assert_eq!(counts, [5, 1, 1]);
}

#[tokio::test]
async fn unusable_replay_input_is_refused() {
    let upstream = MockUpstream::start().await;
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("config.toml"), cloud_model("small", 1.0, &upstream)).unwrap();
    std::fs::write(dir.path().join("empty.jsonl"), "").unwrap();
    for (arguments, reason) in [
        (&["--log", "nowhere"][..], "cannot read nowhere"),
        (&["--log", "empty.jsonl"], "holds no request"),
        (
            &["--log", "empty.jsonl", "--policy", "bold"],
            "no policy `bold` in the config; its policies: default",
        ),
    ] {
        let (code, complaints) = complaint(&replay(dir.path(), arguments));
        assert_eq!(code, Some(2), "{complaints}");
        assert!(complaints.contains(reason), "{complaints}");
    }
}
