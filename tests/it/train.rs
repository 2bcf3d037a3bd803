//! `wattgate train` and `wattgate route` as a person runs them: a router from outcomes, then scores for prompts.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use wattgate::routing::AdequacyModel;
use wattgate::routing::text::TextVector;

const CONFIG: &str = "
[models.here]
ability = -1.0
[models.here.llama]
source = \"file:nowhere.gguf\"
[models.there]
ability = 2.0
[models.there.openai]
base_url = \"http://127.0.0.1:9/v1\"
energy_class = \"small\"
";

fn wattgate(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wattgate")).current_dir(dir).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Six models of rising ability; prompts about capitals are easy, about manifolds hard; every tenth answer is luck.
fn outcomes() -> String {
    let mut lines = String::new();
    for row in 0..120_usize {
        let hard = row % 2 == 0;
        let query = if hard {
            format!("Prove that every compact manifold number {row} embeds")
        } else {
            format!("Name the capital of country number {row}")
        };
        let right =
            |model: usize| (model >= if hard { 4 } else { 1 }) != (row + model).is_multiple_of(10);
        let scores: serde_json::Map<String, Value> =
            (0..6).map(|model| (format!("model-{model}"), json!(u8::from(right(model))))).collect();
        let line = json!({"id": format!("q{row}"), "source": "made", "task": "both", "query": query, "outcomes": scores});
        writeln!(lines, "{line}").unwrap();
    }
    lines
}

/// The same prompts with the labels of two models only.
fn labels() -> String {
    let mut lines = String::new();
    for row in 0..120_usize {
        let hard = row % 2 == 0;
        let query = if hard { format!("Prove lemma {row}") } else { format!("Name city {row}") };
        let weak = u8::from(!hard || row % 10 == 0);
        let strong = u8::from(row % 4 != 1);
        let line = json!({"id": format!("l{row}"), "source": "labelled", "task": "both", "query": query,
            "outcomes": {"weak-one": weak, "model-5": strong}});
        writeln!(lines, "{line}").unwrap();
    }
    lines
}

#[test]
fn a_router_is_trained_the_same_twice_and_tells_easy_from_hard() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("made.jsonl"), outcomes()).unwrap();
    fs::write(dir.path().join("labels.jsonl"), labels()).unwrap();
    let train = |out: &str| {
        let data = ["--data", "made.jsonl", "--data", "labels.jsonl"];
        let output =
            wattgate(dir.path(), &[&["train", "--json", "--out", out], &data[..]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        (fs::read(dir.path().join(out).join("model.bin")).unwrap(), report)
    };
    let (first, report) = train("one/router");
    let (second, _) = train("two/router");
    assert_eq!(first, second);
    assert_eq!(
        fs::read(dir.path().join("one/router/card.md")).unwrap(),
        fs::read(dir.path().join("two/router/card.md")).unwrap()
    );
    assert_eq!(report["pairs"][0]["weak"], "weak-one");
    assert!(report["pairs"][0]["in_domain"]["apgr"].as_f64().unwrap() > 0.6, "{report}");

    let model = AdequacyModel::load(&dir.path().join("one/router")).unwrap();
    let (easy, hard) = (
        TextVector::of_text("Name the capital of country number 777"),
        TextVector::of_text("Prove that every compact manifold number 777 embeds"),
    );
    let middle = model.ability_of("model-2").unwrap();
    assert!(model.predict(&easy, middle) > 0.6 && model.predict(&hard, middle) < 0.4);
    let abilities: Vec<f64> =
        (0..6).map(|i| model.ability_of(&format!("model-{i}")).unwrap()).collect();
    assert!(abilities[0] < abilities[2] && abilities[2] < abilities[5], "{abilities:?}");
    let own = model.predict_known(&TextVector::of_text("Prove lemma 999"), "weak-one").unwrap();
    assert!(own < 0.5, "{own}");
}

#[test]
fn each_kind_of_bad_training_data_is_refused_by_file_and_line() {
    let good = r#"{"id":"1","source":"s","task":"t","query":"q","outcomes":{"m":1}}"#;
    let cases = [
        ("", "0 rows with outcomes"),
        (good, "1 rows with outcomes"),
        (
            r#"{"id":"1","source":"s","task":"t","query":"q","outcomes":{}}"#,
            "bad.jsonl:1: `outcomes` is empty",
        ),
        (
            r#"{"id":"1","source":"s","task":"t","query":"q"}"#,
            "bad.jsonl:1: the line is torn or not JSON of the expected form: missing field `outcomes`",
        ),
        (
            r#"{"id":"1","source":"s","task":"t","query":" ","outcomes":{"m":1}}"#,
            "bad.jsonl:1: `query` is empty",
        ),
        (
            r#"{"id":"1","source":"s","task":"t","query":"q","outcomes":{"m":1},"extra":2}"#,
            "unknown field `extra`",
        ),
        (
            r#"{"id":"1","source":"s","task":"t","query":"q","outcomes":{"m":NaN}}"#,
            "bad.jsonl:1: the line is torn",
        ),
        (
            r#"{"id":"1","source":"s","task":"t","query":"q","outcomes":{"m":1.5}}"#,
            "the score of m is 1.5; scores go from 0 to 1",
        ),
        (&format!("{good}\n{}", &good[..30]), "bad.jsonl:2: the line is torn"),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (data, expected) in cases {
        fs::write(dir.path().join("bad.jsonl"), data).unwrap();
        let output = wattgate(dir.path(), &["train", "--data", "bad.jsonl", "--out", "router"]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{data}: {said}");
        assert!(said.contains(expected), "{data}: {said}");
        assert!(!dir.path().join("router").exists(), "a refused file must leave no router");
    }
}

#[test]
fn one_class_and_a_missing_file_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let all_right = outcomes().replace(":0", ":1");
    fs::write(dir.path().join("right.jsonl"), all_right).unwrap();
    let output = wattgate(dir.path(), &["train", "--data", "right.jsonl", "--out", "router"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("every outcome is right"), "{}", stderr(&output));
    let output = wattgate(dir.path(), &["train", "--data", "none.jsonl", "--out", "router"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("none.jsonl"), "{}", stderr(&output));
}

fn routed(dir: &Path, prompts: &str, more: &[&str]) -> Vec<Value> {
    fs::write(dir.join("config.toml"), CONFIG).unwrap();
    fs::write(dir.join("prompts.jsonl"), prompts).unwrap();
    let output = wattgate(dir, &[&["route", "--json", "--jsonl", "prompts.jsonl"], more].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
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
    let output = wattgate(
        dir.path(),
        &["route", "--jsonl", "prompts.jsonl", "--pair", "gpt-4-1106-preview,nobody"],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("`nobody` is not one"), "{}", stderr(&output));
}

#[test]
fn a_bad_prompt_line_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.toml"), CONFIG).unwrap();
    for (line, expected) in [
        (r#"{"id":"a"}"#, "either `prompt` or `messages`"),
        (r#"{"id":"a","messages":"hi"}"#, "invalid type"),
        ("{", "EOF"),
    ] {
        fs::write(dir.path().join("p.jsonl"), format!("{{\"id\":0,\"prompt\":\"x\"}}\n{line}"))
            .unwrap();
        let output = wattgate(dir.path(), &["route", "--json", "--jsonl", "p.jsonl"]);
        assert_eq!(output.status.code(), Some(2));
        let said = stderr(&output);
        assert!(said.contains("p.jsonl:2:") && said.contains(expected), "{said}");
    }
}
