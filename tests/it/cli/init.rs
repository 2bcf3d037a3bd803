//! `wattgate init` on this machine: it writes a valid configuration and overwrites nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;
use wattgate::config;
use wattgate::models::{Machine, Source, catalogue, recommend};

use crate::rig::app::TestApp;
use crate::rig::engine::model_path;

fn wattgate(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    // Finds a mock tool before the vendor's, if a test has put one there.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", directory.display()));
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[test]
fn init_writes_a_valid_config_and_prints_the_next_steps() {
    let dir = tempfile::tempdir().unwrap();
    let (code, shown) = wattgate(dir.path(), &["init"]);
    assert_eq!(code, Some(0), "{shown}");
    for word in
        ["found   ", "chosen  ", "why     ", "wrote   config.toml", "next    wattgate models pull "]
    {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    assert!(shown.trim_end().ends_with("wattgate serve"), "{shown}");
    let config = config::load(&dir.path().join("config.toml")).unwrap_or_else(|p| panic!("{p}"));
    let (name, _) = config.models.first().unwrap();
    assert!(shown.contains(&format!("chosen  {name} (")), "{shown}");
    let (code, shown) = wattgate(dir.path(), &["check"]);
    assert!(code == Some(0) && shown.contains("config.toml: ok"), "{shown}");
}

#[test]
fn init_overwrites_nothing_without_force() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.toml");
    fs::write(&path, "# mine\n").unwrap();
    let (code, shown) = wattgate(dir.path(), &["init", "--config", "mine.toml", "--yes"]);
    assert!(code == Some(2) && shown.contains("--force"), "{shown}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "# mine\n");
    // A dangling link is not overwritten either.
    std::os::unix::fs::symlink("nowhere", dir.path().join("link.toml")).unwrap();
    assert_eq!(wattgate(dir.path(), &["init", "--config", "link.toml"]).0, Some(2));

    let (code, shown) = wattgate(dir.path(), &["init", "--config", "mine.toml", "--force"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("wattgate serve --config mine.toml"), "{shown}");
    assert!(config::load(&path).is_ok());
    let (code, shown) = wattgate(dir.path(), &["init", "--config", "no/such/place.toml"]);
    assert!(code == Some(1) && shown.contains("cannot write no/such/place.toml"), "{shown}");
}

#[test]
fn init_reports_for_machines_and_sees_a_gpu() {
    let dir = tempfile::tempdir().unwrap();
    let tool = dir.path().join("nvidia-smi");
    fs::write(&tool, "#!/bin/sh\necho 'NVIDIA Test GPU, 24576'\n").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let (code, shown) = wattgate(dir.path(), &["init", "--json"]);
    assert_eq!(code, Some(0), "{shown}");
    let report: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(report["machine"]["gpus"][0]["name"], "NVIDIA Test GPU");
    assert_eq!(report["machine"]["gpus"][0]["memory"]["own"], 24_u64 << 30);
    assert!(report["machine"]["memory_bytes"].as_u64() > Some(1 << 26));
    let config = config::load(&dir.path().join("config.toml")).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(config.models.keys().next().unwrap(), &report["choice"]["model"]["name"]);
    let text = fs::read_to_string(dir.path().join("config.toml")).unwrap();
    assert!(text.contains("NVIDIA Test GPU (24.00 GiB)"), "{text}");
    // Whether the GPU is used depends on the build; the output states it in both cases.
    let (_, shown) = wattgate(dir.path(), &["init", "--force"]);
    let used = report["choice"]["gpu"].is_object();
    assert_eq!(shown.contains("this build cannot use the GPU"), !used, "{shown}");
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn the_config_for_a_small_machine_answers() {
    let machine = Machine { memory_bytes: 1 << 30, cores: 2, gpus: vec![] };
    let choice = recommend(catalogue(), &machine, false).unwrap();
    assert_eq!(choice.model.name, "smollm2-135m");
    let text = config::generate(&choice, "2 cores");
    let gateway = TestApp::start_with(&text, |config| {
        let engine = &mut config.models["smollm2-135m"].engine;
        let config::Engine::Llama(llama) = engine else { panic!("it is local") };
        // The same file in the folder of the tests.
        llama.source = Source::File(model_path());
    })
    .await;
    gateway.until_loaded("smollm2-135m").await;
    let body = json!({
        "model": "auto", "max_tokens": 12, "temperature": 0,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
    });
    let reply = gateway.chat(&body).await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    assert_eq!(reply.json["wattgate"]["model"], "smollm2-135m");
    let answer = reply.json["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(!answer.trim().is_empty(), "{}", reply.json);
}
