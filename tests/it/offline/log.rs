//! `wattgate log` over a log that a gateway wrote.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::rig::app::{ask, client, cloud_model, eventually, records};
use crate::rig::mock_upstream::MockUpstream;
use crate::rig::serving::Serving;

const LOG: &str = "data/traffic";

async fn served(upstream: &MockUpstream) -> TempDir {
    let config = "[traffic]\nprompts = \"full\"\n".to_owned()
        + &cloud_model("small", 1.0, upstream)
        + &cloud_model("large", 6.0, upstream);
    let serving = Serving::start(&config);
    for model in ["small", "small", "large"] {
        let url = format!("{}/v1/chat/completions", serving.url);
        let response = client().post(url).json(&ask(model, "Hello")).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }
    let log = serving.dir.path().join(LOG);
    eventually(|| async { (records(&log).len() == 3).then_some(()) }).await;
    serving.kill()
}

fn log(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
    command.current_dir(dir).args(["log", "--log", LOG]).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn a_log_is_shown_counted_and_exported() {
    let upstream = MockUpstream::start().await;
    let dir = served(&upstream).await;
    let tail = text(&log(dir.path(), &["tail", "-n", "2"]));
    assert_eq!(tail.lines().count(), 2, "{tail}");
    assert!(tail.lines().last().unwrap().contains("large") && !tail.contains("Hello"), "{tail}");

    let stats: Value = serde_json::from_str(&text(&log(dir.path(), &["stats", "--json"]))).unwrap();
    assert_eq!(stats["models"]["small"]["requests"], 2);
    assert!(text(&log(dir.path(), &["stats"])).contains("3 records (3 of version 2)"));

    let cat = text(&log(dir.path(), &["cat"]));
    let record: Value = serde_json::from_str(cat.lines().next().unwrap()).unwrap();
    assert_eq!((&record["model"], cat.lines().count()), (&"small".into(), 3));

    for (names, model, tokens) in [
        ("litellm", "model", "prompt_tokens"),
        ("openinference", "llm.model_name", "llm.token_count.prompt"),
        ("helicone", "model", "prompt_tokens"),
    ] {
        let rows = text(&log(dir.path(), &["export", "--as", names]));
        let row: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
        assert_eq!((&row[model], &row["request_id"]), (&"small".into(), &row["request_id"]));
        assert!(row[tokens].is_u64() && row["wattgate.joules"].is_number(), "{row}");
    }
}

#[tokio::test]
async fn faults_of_a_log_are_counted_and_fail_its_check() {
    let upstream = MockUpstream::start().await;
    let dir = served(&upstream).await;
    let sound = log(dir.path(), &["verify"]);
    assert_eq!(
        (sound.status.code(), text(&sound).contains("every line is whole")),
        (Some(0), true)
    );
    let file = std::fs::read_dir(dir.path().join(LOG)).unwrap().next().unwrap().unwrap().path();
    let lines = std::fs::read_to_string(&file).unwrap();
    let first = lines.lines().next().unwrap().to_owned();
    let faulty = format!("{lines}{first}\n{{\"version\":2}}\n{}", &first[..40]);
    std::fs::write(&file, faulty).unwrap();
    let faulty = log(dir.path(), &["verify", "--json"]);
    assert_eq!(faulty.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&faulty.stdout).unwrap();
    let counts =
        [&found["records"], &found["duplicate_ids"], &found["bad_lines"], &found["torn_lines"]];
    assert_eq!(counts, [4, 1, 1, 1]);
    let missing = log(dir.path(), &["tail", "--log", "nowhere"]);
    assert_eq!(missing.status.code(), Some(2));
}
