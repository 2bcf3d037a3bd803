//! A retrained router runs in shadow first and is promoted or rolled back by one command in a
//! running gateway.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use wattgate::routing::AdequacyModel;

use crate::rig::app::{TestApp, ask, client, cloud_model, eventually, records};
use crate::rig::mock_upstream::MockUpstream;
use crate::rig::serving::Serving;

/// A router that finds everything easy, or hard: its slope is kept and its difficulty shifted.
fn router(dir: &Path, shift: f32) {
    let mut model = AdequacyModel::built_in().unwrap();
    model.easiness.intercept -= shift;
    model.save(dir).unwrap();
}

fn wattgate(dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
    let Output { status, stdout, stderr } =
        command.current_dir(dir).args(arguments).output().unwrap();
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

#[tokio::test]
async fn a_shadow_router_is_evaluated_and_never_applied() {
    let upstream = MockUpstream::start().await;
    let dir = tempfile::tempdir().unwrap();
    router(dir.path(), 20.0);
    let config = "[policies.default]\nfloor = 0.5\n".to_owned()
        + &cloud_model("small", 3.0, &upstream)
        + &cloud_model("large", 8.0, &upstream).replace("\"small\"", "\"frontier\"");
    let app = TestApp::start_with(&config, |config| {
        config.routing.candidate = Some(dir.path().to_owned());
    })
    .await;
    let reply = app.chat(&ask("auto", "What is 2+2?")).await;
    assert_eq!(reply.receipt()["model"], "small", "{}", reply.text);
    let record = app.until_logged(1).await.remove(0);
    let shadow = record.shadow.expect("the candidate's decision is logged");
    assert_eq!(shadow.model.as_deref(), Some("large"), "it finds everything hard");
    assert!(shadow.p["small"] < 0.01, "{shadow:?}");
    let metrics = app.get("/metrics").await.text;
    assert!(
        metrics.contains("wattgate_shadow_decisions_total{policy=\"default\",agrees=\"false\"} 1")
    );
    assert_eq!(upstream.requests().len(), 1);
}

/// The adequacy of `cloud` as the serving router predicts it.
async fn p(url: &str) -> f64 {
    let reply = client().post(format!("{url}/v1/route")).json(&ask("auto", "What is 2+2?")).send();
    let reply: Value = reply.await.unwrap().json().await.unwrap();
    reply["candidates"][0]["p"].as_f64().unwrap()
}

#[tokio::test]
async fn promote_and_rollback_take_effect_in_a_running_gateway() {
    let upstream = MockUpstream::start().await;
    let dir = tempfile::tempdir().unwrap();
    router(&dir.path().join("live"), 0.0);
    router(&dir.path().join("next"), 20.0);
    let text = format!(
        "[routing]\nrouter = \"live\"\ncandidate = \"next\"\n{}",
        cloud_model("cloud", 3.0, &upstream)
    );
    std::fs::write(dir.path().join("config.toml"), &text).unwrap();
    let serving = Serving::start_in(dir);
    // The commands find the gateway by its address in the config.
    let address = serving.url.strip_prefix("http://").unwrap();
    let dir = serving.dir.path();
    std::fs::write(dir.join("config.toml"), format!("{text}\n[server]\nlisten = \"{address}\"\n"))
        .unwrap();
    let before = p(&serving.url).await;
    assert!(before > 0.5, "{before}");

    let (code, said) = wattgate(dir, &["router", "promote"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("version 2 serves") && said.contains("gateway reloaded the router"),
        "{said}"
    );
    assert!(p(&serving.url).await < 0.01);
    assert!(
        wattgate(dir, &["router", "list"]).1.contains("serves  2"),
        "{:?}",
        wattgate(dir, &["router", "list"])
    );

    let (code, said) = wattgate(dir, &["router", "rollback"]);
    assert_eq!(code, Some(0), "{said}");
    assert!((p(&serving.url).await - before).abs() < 1e-12);
    let (code, said) = wattgate(dir, &["router", "rollback"]);
    assert_eq!((code, said.contains("nothing to roll back to")), (Some(2), true), "{said}");

    // A damaged candidate changes nothing, neither on disk nor in the gateway.
    std::fs::write(dir.join("next/model.bin"), b"WGROUTER damaged").unwrap();
    let (code, said) = wattgate(dir, &["router", "promote"]);
    assert_eq!((code, said.contains("not promoted")), (Some(2), true), "{said}");
    let url = format!("{}/admin/router/reload", serving.url);
    let refused = client().post(&url).send().await.unwrap();
    assert_eq!(refused.status(), 422);
    let refused: Value = refused.json().await.unwrap();
    assert_eq!(refused["error"]["code"], "router_refused");
    assert!((p(&serving.url).await - before).abs() < 1e-12);
}

#[tokio::test]
async fn sighup_reloads_the_router() {
    let upstream = MockUpstream::start().await;
    let dir = tempfile::tempdir().unwrap();
    router(&dir.path().join("live"), 0.0);
    let text = format!("[routing]\nrouter = \"live\"\n{}", cloud_model("cloud", 3.0, &upstream));
    std::fs::write(dir.path().join("config.toml"), text).unwrap();
    let serving = Serving::start_in(dir);
    assert!(p(&serving.url).await > 0.5);
    router(&serving.dir.path().join("live"), 20.0);
    serving.signal("HUP");
    eventually(|| async { (p(&serving.url).await < 0.01).then_some(()) }).await;
    assert_eq!(serving.terminate(), Some(0), "it still stops in order");
}

#[tokio::test]
async fn drift_is_reported_after_enough_requests() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&cloud_model("cloud", 3.0, &upstream)).await;
    for _ in 0..120 {
        assert_eq!(app.post("/v1/route", &ask("auto", "hi")).await.status, 200);
    }
    let metrics = app.get("/metrics").await.text;
    let line =
        metrics.lines().find(|line| line.starts_with("wattgate_router_drift_psi{role=\"router\"}"));
    let psi: f64 = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(psi > 0.25, "the same two letters over and over: {psi}");
}

/// A log with verdicts on 80 answers of two models: both know capitals, only the large one lemmas.
async fn judged_log(prompts: &str) -> tempfile::TempDir {
    let upstream = MockUpstream::start().await;
    let config = cloud_model("small", 1.0, &upstream)
        + &cloud_model("large", 3.0, &upstream)
        + &format!("[traffic]\nprompts = \"{prompts}\"\n");
    let serving = Serving::start(&config);
    for turn in 0..40 {
        let hard = turn % 2 == 0;
        let topic =
            if hard { "Prove the lemma about manifold" } else { "Name the capital of country" };
        for model in ["small", "large"] {
            let luck = turn % 10 == 0;
            let good = !hard || (model == "large") != luck;
            judge(&serving.url, &ask(model, &format!("{topic} number {turn}")), good).await;
        }
    }
    let log = serving.dir.path().join("data/traffic");
    let labelled = || async {
        let records = records(&log);
        (records.iter().filter(|record| record.label.is_some()).count() == 80).then_some(())
    };
    eventually(labelled).await;
    serving.kill()
}

async fn judge(url: &str, question: &Value, good: bool) {
    let post = |path: &str, body: &Value| client().post(format!("{url}{path}")).json(body).send();
    let answer = post("/v1/chat/completions", question).await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    let verdict = if good { "good" } else { "bad" };
    let body = json!({"request_id": answer["wattgate"]["request_id"], "verdict": verdict});
    assert_eq!(post("/v1/feedback", &body).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_router_is_trained_from_the_log_and_its_outcomes() {
    let dir = judged_log("full").await;
    let (code, said) = wattgate(dir.path(), &["train", "--log", "data/traffic", "--out", "mine"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("40 rows, 2 models"), "{said}");
    let model = AdequacyModel::load(&dir.path().join("mine")).unwrap();
    let text = |text: &str| wattgate::routing::text::TextVector::of_text(text);
    let (hard, easy) = (
        model.difficulty(&text("Prove the lemma about manifold number 99")),
        model.difficulty(&text("Name the capital of country number 99")),
    );
    assert!(hard > easy, "{hard} {easy}");
    assert!(dir.path().join("mine/reference.json").exists());
    let (code, said) =
        wattgate(dir.path(), &["router", "fit-cascade", "--log", "data/traffic", "--out", "mine"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("0 judged answers with signals"), "{said}");
}

#[tokio::test]
async fn training_from_a_log_without_prompts_is_refused_with_a_remedy() {
    let dir = judged_log("hash").await;
    let (code, said) = wattgate(dir.path(), &["train", "--log", "data/traffic", "--out", "mine"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("prompts = \"full\""), "{said}");
    assert!(!dir.path().join("mine").exists());
}
