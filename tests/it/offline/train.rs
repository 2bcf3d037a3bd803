//! `wattgate train` as a process: a router from outcomes, and errors for bad ones.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use wattgate::routing::AdequacyModel;
use wattgate::routing::text::TextVector;

use crate::rig::cli::{CONFIG, stderr, wattgate};

/// Six models of rising ability; prompts about capitals are easy, about manifolds hard; every tenth
/// outcome is flipped.
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
fn training_is_deterministic_and_separates_easy_from_hard() {
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
    let (easy, hard) = (model.predict(&easy, middle), model.predict(&hard, middle));
    assert!(easy > 0.6 && hard < 0.4, "{easy} {hard}");
    let abilities: Vec<f64> =
        (0..6).map(|i| model.ability_of(&format!("model-{i}")).unwrap()).collect();
    assert!(abilities[0] < abilities[2] && abilities[2] < abilities[5], "{abilities:?}");
    let own = |text: &str| model.predict_known(&TextVector::of_text(text), "weak-one").unwrap();
    let (easy, hard) = (own("Name city 999"), own("Prove lemma 999"));
    assert!(easy > hard + 0.2, "{easy} {hard}");
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
            "bad.jsonl:1: the line is not JSON of the expected form, or cut short: missing field `outcomes`",
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
            "bad.jsonl:1: the line is not JSON",
        ),
        (
            r#"{"id":"1","source":"s","task":"t","query":"q","outcomes":{"m":1.5}}"#,
            "the score of m is 1.5; a score must be from 0 to 1",
        ),
        (&format!("{good}\n{}", &good[..30]), "bad.jsonl:2: the line is not JSON"),
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
fn blank_lines_and_a_byte_order_mark_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let lines = outcomes();
    let plain = report(dir.path(), &lines, &[]);
    let model = fs::read(dir.path().join("router/model.bin")).unwrap();
    let edited = format!("\u{feff}{}\n\n \r\n", lines.replace('\n', "\r\n"));
    let found = report(dir.path(), &edited, &[]);
    assert_eq!(found["sources"][0]["rows"], plain["sources"][0]["rows"]);
    assert_eq!(fs::read(dir.path().join("router/model.bin")).unwrap(), model);
}

#[test]
fn averaged_rows_and_incomparable_models_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let lines = outcomes();
    fs::write(dir.path().join("twice.jsonl"), lines.repeat(2)).unwrap();
    let output = wattgate(dir.path(), &["train", "--data", "twice.jsonl", "--out", "router"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("120 duplicate rows averaged, 0 of them with different scores"),
        "{said}"
    );
    let one: String = (0..40_usize)
        .map(|row| {
            let (query, score) = (format!("question {row}"), row % 2);
            json!({"id": row.to_string(), "source": "s", "task": "t", "query": query, "outcomes": {"only": score}})
                .to_string()
                + "\n"
        })
        .collect();
    fs::write(dir.path().join("one.jsonl"), one).unwrap();
    let output = wattgate(dir.path(), &["train", "--data", "one.jsonl", "--out", "none"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("all outcomes are of one model, `only`"),
        "{}",
        stderr(&output)
    );
    let refine = ["train", "--data", "one.jsonl", "--prior", "router", "--out", "refined"];
    let output = wattgate(dir.path(), &refine);
    assert!(output.status.success(), "{}", stderr(&output));
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

/// The report of a training on these lines.
fn report(dir: &Path, lines: &str, more: &[&str]) -> Value {
    fs::write(dir.join("data.jsonl"), lines).unwrap();
    let arguments = ["train", "--json", "--data", "data.jsonl", "--out", "router"];
    let output = wattgate(dir, &[&arguments, more].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn duplicate_rows_are_averaged_and_contradictions_counted() {
    let dir = tempfile::tempdir().unwrap();
    let lines = outcomes();
    let again: Vec<&str> = lines.lines().take(10).collect();
    let opposite = again[0].replace(":0", ":2").replace(":1", ":0").replace(":2", ":1");
    // Only the scores are reversed: identity and text stay.
    let opposite = format!(
        "{}{}",
        &again[0][..again[0].find("outcomes").unwrap()],
        &opposite[opposite.find("outcomes").unwrap()..]
    );
    let found = report(dir.path(), &format!("{lines}{}\n{opposite}\n", again[1..].join("\n")), &[]);
    assert_eq!((&found["duplicates"], &found["contradictions"]), (&json!(10), &json!(1)));
    assert_eq!(found["sources"][0]["rows"], 120);
}

#[test]
fn twenty_rows_are_enough_for_valid_probabilities() {
    let dir = tempfile::tempdir().unwrap();
    let twenty: Vec<String> = outcomes().lines().take(20).map(str::to_owned).collect();
    report(dir.path(), &twenty.join("\n"), &[]);
    let model = AdequacyModel::load(&dir.path().join("router")).unwrap();
    for text in ["", "Name the capital of country number 3", "print(1)"] {
        let p = model.predict_known(&TextVector::of_text(text), "model-3").unwrap();
        assert!(0.0 < p && p < 1.0, "{p}");
    }
}

#[test]
fn rows_above_the_training_limit_are_sampled() {
    let dir = tempfile::tempdir().unwrap();
    let mut lines = String::new();
    for row in 0..100_000_u32 {
        let (able, weak) = (u8::from(row % 3 > 0), u8::from(row % 3 > 1));
        writeln!(lines, r#"{{"id":"{row}","source":"s","task":"t","query":"q{row} {able}","outcomes":{{"m":{able},"w":{weak}}}}}"#)
            .unwrap();
    }
    let found = report(dir.path(), &lines, &[]);
    let kept = found["sources"][0]["rows"].as_u64().unwrap();
    assert!((15_000..=40_000).contains(&kept), "{kept}");
    assert_eq!(found["unsampled"].as_u64().unwrap() + kept, 100_000);
}

#[test]
fn own_labels_refine_a_router_and_keep_its_other_models() {
    let dir = tempfile::tempdir().unwrap();
    report(dir.path(), &outcomes(), &[]);
    let before = AdequacyModel::load(&dir.path().join("router")).unwrap();
    fs::rename(dir.path().join("router"), dir.path().join("prior")).unwrap();
    let found = report(dir.path(), &labels(), &["--prior", "prior"]);
    assert!(found["calibration"].is_null());
    let after = AdequacyModel::load(&dir.path().join("router")).unwrap();
    assert_eq!((after.slope, &after.easiness), (before.slope, &before.easiness));
    assert!(after.ability_of("weak-one").is_some() && before.ability_of("weak-one").is_none());
    let text = TextVector::of_text("Prove lemma 999");
    assert!(after.predict_known(&text, "weak-one").unwrap() < 0.5);
    let ability = after.ability_of("model-2").unwrap();
    assert!(
        (after.predict_known(&text, "model-2").unwrap() - before.predict(&text, ability)).abs()
            < 1e-12
    );
}

#[test]
fn an_unusable_router_is_reported_and_a_failed_training_keeps_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    report(dir.path(), &outcomes(), &[]);
    let path = dir.path().join("router/model.bin");
    let good = fs::read(&path).unwrap();
    let output = wattgate(dir.path(), &["train", "--data", "none.jsonl", "--out", "router"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(fs::read(&path).unwrap(), good);
    fs::write(dir.path().join("config.toml"), CONFIG).unwrap();
    fs::write(dir.path().join("prompts.jsonl"), r#"{"id":"a","prompt":"Hi"}"#).unwrap();
    for (at, bit, expected) in
        [(8, 1, "format version 3"), (5_000, 4, "corrupt"), (0, 1, "not a router")]
    {
        let mut bad = good.clone();
        bad[at] ^= bit;
        fs::write(&path, bad).unwrap();
        let route =
            wattgate(dir.path(), &["route", "--jsonl", "prompts.jsonl", "--router", "router"]);
        let refine = wattgate(
            dir.path(),
            &["train", "--data", "data.jsonl", "--prior", "router", "--out", "new"],
        );
        for output in [route, refine] {
            assert!(!output.status.success());
            assert!(stderr(&output).contains(expected), "{}", stderr(&output));
        }
        assert!(!dir.path().join("new").exists());
    }
}

#[test]
fn an_alternative_design_is_compared_and_not_saved() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("labels.jsonl"), labels()).unwrap();
    let mut vectors = String::from("{\"design\":\"an oracle\",\"bytes\":4000}\n");
    for row in 0..120_usize {
        // The labels follow these two columns: hard or not, and which of four.
        let vector = json!([f64::from(u8::from(row % 2 == 0)), (row % 4) as f64]);
        writeln!(
            vectors,
            "{}",
            json!({"id": format!("l{row}"), "vector": vector, "latency_us": 7.0, "joules": 0.5})
        )
        .unwrap();
    }
    fs::write(dir.path().join("vectors.jsonl"), &vectors).unwrap();
    let more = ["--data", "labels.jsonl", "--vectors", "vectors.jsonl", "--compare", "designs.md"];
    let found = report(dir.path(), &outcomes(), &more);
    let designs = found["designs"].as_array().unwrap();
    assert_eq!(designs.len(), 3);
    let apgr = |at: usize| designs[at]["ranking"]["apgr"].as_f64().unwrap();
    assert!(apgr(1) > apgr(0), "the oracle ranks better: {designs:?}");
    assert_eq!(designs[1]["joules"], 0.5);
    let page = fs::read_to_string(dir.path().join("designs.md")).unwrap();
    assert!(page.contains("an oracle + structure") && page.contains("0.50 J"), "{page}");

    fs::write(dir.path().join("vectors.jsonl"), vectors.replace("[1.0,0.0]", "[1.0]")).unwrap();
    let arguments = ["train", "--data", "data.jsonl", "--out", "other"];
    let output = wattgate(dir.path(), &[&arguments[..], &more].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("vectors.jsonl:"), "{}", stderr(&output));
}
