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
