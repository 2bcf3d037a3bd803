//! `wattgate route` as a process: scores and decisions for a file of prompts.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::rig::cli::{CONFIG, stderr, wattgate};

fn routes_with(dir: &Path, config: &str, prompts: &[u8], more: &[&str]) -> Output {
    fs::write(dir.join("config.toml"), config).unwrap();
    fs::write(dir.join("prompts.jsonl"), prompts).unwrap();
    wattgate(dir, &[&["route", "--jsonl", "prompts.jsonl"], more].concat())
}

fn routes(dir: &Path, prompts: &[u8], more: &[&str]) -> Output {
    routes_with(dir, CONFIG, prompts, more)
}

fn scored(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn routed(dir: &Path, prompts: &str, more: &[&str]) -> Vec<Value> {
    let output = routes(dir, prompts.as_bytes(), &[&["--json"], more].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    scored(&output)
}

#[test]
fn prompts_are_scored_line_by_line_for_the_models_of_the_config() {
    let dir = tempfile::tempdir().unwrap();
    let prompts = r#"{"id":"a","prompt":"What is the capital of France?"}
{"id":7,"messages":[{"role":"system","content":"Be brief"},{"role":"user","content":"What is the capital of France?"}]}"#;
    let lines = routed(dir.path(), prompts, &[]);
    assert_eq!((&lines[0]["id"], &lines[1]["id"]), (&json!("a"), &json!(7)));
    assert_eq!(lines[0]["p"], lines[1]["p"], "a system turn does not change what is asked");
    let (here, there) =
        (lines[0]["p"]["here"].as_f64().unwrap(), lines[0]["p"]["there"].as_f64().unwrap());
    assert!(0.0 < here && here < there && there < 1.0);
    assert!((lines[0]["gain"].as_f64().unwrap() - (there - here)).abs() < 1e-12);
    assert!(["here", "there"].contains(&lines[0]["model"].as_str().unwrap()));
}

#[test]
fn a_pair_of_known_models_is_scored_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let pair = ["--pair", "mixtral-8x7b-instruct-v0.1,gpt-4-1106-preview"];
    let line = &routed(dir.path(), r#"{"id":"a","prompt":"Who wrote Faust?"}"#, &pair)[0];
    assert_eq!(line["p"].as_object().unwrap().len(), 2);
    assert!(line["gain"].as_f64().unwrap().is_finite());
    let pair = ["--pair", "here, gpt-4-1106-preview"];
    let line = &routed(dir.path(), r#"{"id":"a","prompt":"Who wrote Faust?"}"#, &pair)[0];
    let p = |name: &str| line["p"][name].as_f64().unwrap();
    assert!((line["gain"].as_f64().unwrap() - (p("gpt-4-1106-preview") - p("here"))).abs() < 1e-12);
}

#[test]
fn an_unknown_pair_is_refused_with_a_suggestion() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.toml"), CONFIG).unwrap();
    fs::write(dir.path().join("prompts.jsonl"), r#"{"id":"a","prompt":"Hi"}"#).unwrap();
    for (pair, expected) in [
        ("here,gpt4-1106-preview", "similar names: `gpt-4-1106-preview`"),
        ("heer,there", "similar names: `here`"),
        ("here", "takes two different names, WEAK,STRONG"),
    ] {
        let output = wattgate(dir.path(), &["route", "--jsonl", "prompts.jsonl", "--pair", pair]);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}

#[test]
fn ids_and_order_are_kept_exactly_also_from_stdin() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.toml"), CONFIG).unwrap();
    let ids = ["123456789012345678901234567890", "-1.50", r#""\u00e9 ""#, "null", r#"{"a": 1}"#];
    let line = |id: &&str| format!("{{\"id\":{id},\"prompt\":\"x\"}}\n\n");
    let lines: Vec<String> = ids.iter().map(line).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
    command.current_dir(dir.path()).args(["route", "--json", "--jsonl", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.concat().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let found: Vec<&str> =
        text.lines().map(|line| &line[6..line.find(",\"task\"").unwrap()]).collect();
    assert_eq!(found, ids);
}

#[test]
fn every_bad_line_is_reported_and_the_others_are_scored() {
    let dir = tempfile::tempdir().unwrap();
    let bad: [(&[u8], &str); 7] = [
        (br#"{"id":"a"}"#, "either `prompt` or `messages`"),
        (br#"{"id":"a","prompt":"x","messages":[]}"#, "either `prompt` or `messages`"),
        (br#"{"id":"a","messages":"hi"}"#, "invalid type"),
        (br#"{"prompt":"x"}"#, "missing field `id`"),
        (br#"{"id":"a","prompt":NaN}"#, "expected"),
        (b"{", "EOF"),
        (b"{\"id\":\"\xff\",\"prompt\":\"x\"}", "UTF-8"),
    ];
    let mut prompts = Vec::new();
    for (at, (line, _)) in bad.iter().enumerate() {
        prompts.extend_from_slice(line);
        prompts.extend_from_slice(format!("\n{{\"id\":{at},\"prompt\":\"x\"}}\n").as_bytes());
    }
    let output = routes(dir.path(), &prompts, &["--json"]);
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    for (at, (_, expected)) in bad.iter().enumerate() {
        let place = format!("prompts.jsonl:{}: ", 2 * at + 1);
        let line = said.lines().find(|line| line.starts_with(&place));
        assert!(line.is_some_and(|line| line.contains(expected)), "{place} {expected} in {said}");
    }
    assert!(said.contains("7 of 14 lines could not be scored"), "{said}");
    let ids: Vec<Value> = scored(&output).iter().map(|line| line["id"].clone()).collect();
    assert_eq!(ids, (0..7).map(Value::from).collect::<Vec<_>>());

    // A file of another format gives one error, not one per line.
    let output = routes(dir.path(), "[\n".repeat(1000).as_bytes(), &[]);
    assert_eq!((output.status.code(), stderr(&output).lines().count()), (Some(2), 21));
}

#[test]
fn only_models_that_can_answer_are_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = "[models.vectors]\nability = 9.0\nopenai = { base_url = \"http://127.0.0.1:9/v1\", embedding = true }\n";
    let config = CONFIG.replace("[models.there]", &format!("{vectors}[models.there]"))
        + "[policies.default]\nfloor = 0.0\nobjective = \"joules\"\n";
    let long = "word ".repeat(40_000);
    let picture = r#"{"id":"c","messages":[{"role":"user","content":[{"type":"text","text":"What is it?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}]}]}"#;
    let prompts = format!(
        "{}\n{}\n{picture}\n",
        json!({"id": "a", "prompt": "What is 2+2?"}),
        json!({"id": "b", "prompt": long})
    );
    let output = routes_with(dir.path(), &config, prompts.as_bytes(), &["--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let lines = scored(&output);
    let chosen: Vec<&str> = lines.iter().map(|line| line["model"].as_str().unwrap()).collect();
    assert_eq!(chosen, ["here", "there", "there"], "too long for it, and an image");
    assert_eq!(lines[0]["p"].as_object().unwrap().len(), 2, "a model of vectors gives no text");
}

#[test]
fn a_missing_policy_or_router_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{CONFIG}[policies.frugal]\n");
    for (arguments, expected) in [
        (
            ["--policy", "fugral"],
            "no policy `fugral` in the config; similar names: `frugal`, `default`",
        ),
        (["--router", "nowhere"], "nowhere/model.bin"),
        (["--pair", "here,vectors,there"], "takes two different names"),
        (["--pair", "here,here"], "takes two different names"),
    ] {
        let output = routes_with(dir.path(), &config, br#"{"id":1,"prompt":"x"}"#, &arguments);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
    let output = wattgate(dir.path(), &["route", "--jsonl", "none.jsonl"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("none.jsonl"), "{}", stderr(&output));
}
