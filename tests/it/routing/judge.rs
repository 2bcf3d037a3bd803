//! Shadow judging: a share of the answers is judged outside of the request path and counted as
//! overhead.

use serde_json::{Value, json};

use crate::rig::app::{TestApp, ask, ask_streaming, cloud_model, eventually};
use crate::rig::local_models::{fake_smol, short, smol};
use crate::rig::mock_upstream::{MockUpstream, Mode};

fn config(answering: &MockUpstream, judge: &MockUpstream, mode: &str) -> String {
    format!("[judge]\nshare = 1.0\nmodel = \"judge\"\nmode = \"{mode}\"\n")
        + "[policies.default]\nobjective = \"quality\"\n"
        + &cloud_model("best", 5.0, answering)
        + &cloud_model("other", 3.0, answering)
        + &cloud_model("judge", 1.0, judge)
}

/// A request's record once it has a label.
async fn labelled(app: &TestApp, id: &Value) -> Value {
    let path = format!("/v1/requests/{}", id.as_str().unwrap());
    eventually(|| async {
        let record = app.get(&path).await.json;
        record["label"].is_number().then_some(record)
    })
    .await
}

async fn until_metric(app: &TestApp, sample: &str) {
    eventually(|| async {
        let metrics = app.get("/metrics").await.text;
        metrics.lines().any(|line| line == sample).then_some(())
    })
    .await;
}

/// Reads both answers and prefers the one that came from `best`.
fn fair(body: &Value) -> Option<String> {
    let prompt = body["messages"][1]["content"].as_str()?;
    let first = prompt.split("<answer_a>").nth(1)?.split("</answer_a>").next()?;
    Some(json!({"better": if first.contains("from best") { "A" } else { "B" }}).to_string())
}

/// Names the model in its answer, so that a judge can tell answers apart.
fn named(body: &Value) -> Option<String> {
    Some(format!("from {}", body["model"].as_str()?.strip_suffix("-upstream")?))
}

#[tokio::test]
async fn a_consistent_judge_scores_and_a_position_biased_one_gives_a_tie() {
    for (opinion, label) in [
        (fair as fn(&Value) -> Option<String>, 1.0),
        (|_| Some(r#"{"better":"A"}"#.to_owned()), 0.5),
        (|_| Some(r#"{"better":"tie"}"#.to_owned()), 0.5),
    ] {
        for stream in [false, true] {
            let (answering, judge) = (MockUpstream::start().await, MockUpstream::start().await);
            answering.respond_with(Mode::Judge(named));
            judge.respond_with(Mode::Judge(opinion));
            let app = TestApp::start(&config(&answering, &judge, "pairwise")).await;
            let mut request = ask("auto", "What is 2+2?");
            request["stream"] = json!(stream);
            let receipt = if stream {
                app.stream(&request).await.receipt().clone()
            } else {
                app.chat(&request).await.receipt().clone()
            };
            assert_eq!(receipt["model"], "best");
            let record = labelled(&app, &receipt["request_id"]).await;
            assert_eq!(record["label"], label);
            // Both orders, in the requested format; the client's request has one attempt and one
            // receipt.
            let asked = judge.requests();
            assert_eq!(asked.len(), 2);
            let keys = asked.iter().map(|one| one.headers.get("authorization"));
            assert!(keys.flatten().all(|key| !key.to_str().unwrap().contains("clients-own")));
            let form = &asked[0].body["response_format"]["json_schema"];
            assert_eq!((&form["strict"], &form["name"]), (&json!(true), &json!("comparison")));
            assert_eq!(record["attempts"].as_array().unwrap().len(), 1);
            assert_eq!(
                record["dollars"],
                app.get(&format!("/v1/requests/{}", receipt["request_id"].as_str().unwrap()))
                    .await
                    .json["dollars"]
            );
            let metrics = app.get("/metrics").await.text;
            for model in ["judge", "other"] {
                let overhead = format!(
                    "request_energy_joules_total{{model=\"{model}\",route=\"cloud\",quality=\"assumed\",source=\"cloud_table\",purpose=\"overhead\"}}"
                );
                assert!(metrics.contains(&overhead), "{metrics}");
                let cost = format!("overhead_cost_dollars_total{{model=\"{model}\"");
                assert!(metrics.contains(&cost), "{metrics}");
            }
            assert!(!metrics.contains("model=\"best\",route=\"cloud\",quality=\"assumed\",source=\"cloud_table\",purpose=\"overhead\""));
        }
    }
}

#[tokio::test]
async fn a_single_grade_becomes_a_score_and_an_unparsable_one_none() {
    let (answering, judge) = (MockUpstream::start().await, MockUpstream::start().await);
    let app = TestApp::start(&config(&answering, &judge, "pointwise")).await;
    judge.respond_with(Mode::Judge(|_| Some("{\"grade\": 4}".to_owned())));
    let reply = app.chat(&ask("best", "What is 2+2?")).await;
    assert_eq!(labelled(&app, &reply.receipt()["request_id"]).await["label"], 0.75);
    assert_eq!(answering.requests().len(), 1, "nobody else was asked");
    judge.respond_with(Mode::Answer);
    let reply = app.chat(&ask("best", "And 3+3?")).await;
    until_metric(&app, "wattgate_judgements_total{model=\"judge\",outcome=\"no_verdict\"} 1").await;
    let path = format!("/v1/requests/{}", reply.receipt()["request_id"].as_str().unwrap());
    assert_eq!(app.get(&path).await.json.get("label"), None);
    judge.respond_with(Mode::Status(500));
    app.chat(&ask("best", "And 4+4?")).await;
    until_metric(&app, "wattgate_judgements_total{model=\"judge\",outcome=\"failed\"} 1").await;
}

#[tokio::test]
async fn a_local_only_conversation_is_never_sent_to_a_remote_judge() {
    let judge = MockUpstream::start().await;
    let text = fake_smol("") + &cloud_model("judge", 4.0, &judge);
    let on = format!("[judge]\nshare = 1.0\nmodel = \"judge\"\n{text}");
    let app = TestApp::start_fake(&on).await;
    app.until_loaded("smol").await;
    let request = app.request("/v1/chat/completions").header("x-wattgate-local-only", "true");
    let sent = request.json(&short("auto", "My secret is Xyzzy.")).send().await.unwrap();
    assert_eq!(sent.status(), 200);
    until_metric(&app, "wattgate_judgements_total{model=\"judge\",outcome=\"local_only\"} 1").await;
    assert!(judge.requests().is_empty());

    let app = TestApp::start_fake(&text).await;
    app.until_loaded("smol").await;
    app.chat(&short("smol", "hi")).await;
    app.until_logged(1).await;
    assert!(judge.requests().is_empty());
    assert!(!app.get("/metrics").await.text.contains("wattgate_judgements_total{"));
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_local_judge_answers_in_the_schema_and_its_joules_are_overhead() {
    let text = smol("") + "[judge]\nshare = 1.0\nmodel = \"smol\"\nmode = \"pointwise\"\n";
    let app = TestApp::start(&text).await;
    app.until_loaded("smol").await;
    let reply = app.chat(&short("smol", "Who wrote Hamlet?")).await;
    let record = labelled(&app, &reply.receipt()["request_id"]).await;
    assert!((0.0..=1.0).contains(&record["label"].as_f64().unwrap()), "{record}");
    eventually(|| async {
        let metrics = app.get("/metrics").await.text;
        let mut lines = metrics.lines();
        let overhead = lines.find(|line| {
            line.starts_with("wattgate_request_energy_joules_total{model=\"smol\"")
                && line.contains("purpose=\"overhead\"")
        })?;
        (overhead.rsplit(' ').next()?.parse::<f64>().ok()? > 0.0).then_some(())
    })
    .await;
    assert_eq!(app.records().len(), 1, "the judge's question is no request");
}

#[tokio::test]
async fn a_slow_judge_delays_no_request_and_its_queue_is_bounded() {
    let (answering, judge) = (MockUpstream::start().await, MockUpstream::start().await);
    let text = config(&answering, &judge, "pointwise")
        .replace("share = 1.0", "share = 1.0\nqueue = 1\ndeadline_ms = 400");
    judge.respond_with(Mode::HangBeforeHeaders);
    let app = TestApp::start(&text).await;
    for question in ["one", "two", "three", "four"] {
        assert!(app.stream(&ask_streaming("best", question)).await.done);
    }
    eventually(|| async {
        let metrics = app.get("/metrics").await.text;
        let full = metrics.contains("outcome=\"queue_full\"");
        (full && metrics.contains("outcome=\"late\"")).then_some(())
    })
    .await;
    judge.until_open(0).await;
    // A running judge does not delay the shutdown.
    app.chat(&ask("best", "five")).await;
    let started = std::time::Instant::now();
    app.stop().await;
    assert!(started.elapsed() < std::time::Duration::from_secs(30));
}

#[tokio::test]
async fn hidden_reasoning_tokens_of_a_judge_are_billed() {
    let (answering, judge) = (MockUpstream::start().await, MockUpstream::start().await);
    let app = TestApp::start(&config(&answering, &judge, "pointwise")).await;
    // The reasoning is in the total only, as some upstreams count.
    judge.respond_with(Mode::Verbatim(
        200,
        "application/json",
        r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"{\"grade\": 4}"},"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":10,"total_tokens":4100}}"#,
    ));
    let reply = app.chat(&ask("best", "What is 2+2?")).await;
    labelled(&app, &reply.receipt()["request_id"]).await;
    let metrics = app.get("/metrics").await.text;
    let value = |name: &str| {
        let line =
            metrics.lines().find(|line| line.starts_with(name) && line.contains("model=\"judge\""));
        line.unwrap_or_else(|| panic!("{metrics}"))
            .rsplit_once(' ')
            .unwrap()
            .1
            .parse::<f64>()
            .unwrap()
    };
    // Class "small": 0.06 J per prompt token and 0.25 J per generated one.
    let joules = value("wattgate_request_energy_joules_total{");
    assert!((joules - 1006.0).abs() < 1e-6, "{joules}");
    let dollars = value("wattgate_overhead_cost_dollars_total{");
    assert!((dollars - 0.0401).abs() < 1e-9, "{dollars}");
}
