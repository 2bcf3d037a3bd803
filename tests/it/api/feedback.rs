//! `POST /v1/feedback` and implicit signals: joined to their request in receipts, metrics and log.

use serde_json::{Value, json};
use wattgate::traffic::{Annotation, ImplicitSignal, Line, read_log};

use crate::rig::app::{TestApp, ask, ask_streaming, client, cloud_model, eventually, records};
use crate::rig::mock_upstream::{MockUpstream, Mode};
use crate::rig::serving::Serving;

async fn gateway(upstream: &MockUpstream, more: &str) -> TestApp {
    TestApp::start(&(cloud_model("cloud", 3.0, upstream) + more)).await
}

async fn answered(app: &TestApp, prompt: &str) -> String {
    let reply = app.chat(&ask("auto", prompt)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.receipt()["request_id"].as_str().unwrap().to_owned()
}

async fn say(app: &TestApp, id: &str, rest: Value) -> (u16, Value) {
    let mut body = json!({"request_id": id});
    body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    let reply = app.post("/v1/feedback", &body).await;
    (reply.status, reply.json)
}

/// Sum of the samples of one metric.
async fn total(app: &TestApp, name: &str) -> f64 {
    let text = app.get("/metrics").await.text;
    let samples = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// The same in thousandths, to compare.
async fn metric(app: &TestApp, name: &str) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]
    let thousandths = (total(app, name).await * 1e3).round() as i64;
    thousandths
}

#[tokio::test]
async fn a_verdict_is_counted_once_with_the_joules_and_seconds_of_its_request() {
    let upstream = MockUpstream::start().await;
    let app = gateway(&upstream, "").await;
    let (good, bad, unjudged) =
        (answered(&app, "one").await, answered(&app, "two").await, answered(&app, "three").await);
    let (status, reply) = say(&app, &format!("chatcmpl-{good}"), json!({"verdict": "good"})).await;
    assert_eq!((status, &reply["label"], &reply["request_id"]), (200, &json!(1.0), &json!(good)));
    say(&app, &bad, json!({"score": 0.25})).await;
    assert_eq!(metric(&app, "wattgate_outcomes_total").await, 2000);
    assert_eq!(metric(&app, "wattgate_outcome_score_total").await, 1250);
    let joules = |record: &Value| record["energy"]["joules"].as_f64().unwrap();
    let (one, two) = (app.settled(&good).await, app.settled(&bad).await);
    let sum = metric(&app, "wattgate_outcome_energy_joules_total").await;
    let expected = (joules(&one) + joules(&two)) * 1e3;
    assert!((sum as f64 - expected).abs() <= 0.5, "{sum} {expected}");
    assert!(total(&app, "wattgate_outcome_duration_seconds_total").await > 0.0);
    assert_eq!(metric(&app, "wattgate_calibration_outcomes_total").await, 2000);
    let text = app.get("/metrics").await.text;
    let labels =
        "model=\"cloud\",policy=\"default\",route=\"cloud\",source=\"client\",quality=\"assumed\"";
    assert!(text.contains(labels), "{text}");
    assert_eq!(app.get(&format!("/v1/requests/{unjudged}")).await.json.get("label"), None);
    assert_eq!(app.get(&format!("/v1/requests/{bad}")).await.json["label"], 0.25);
}

#[tokio::test]
async fn the_last_verdict_of_each_source_counts() {
    let upstream = MockUpstream::start().await;
    let app = gateway(&upstream, "").await;
    let id = answered(&app, "one").await;
    for score in [0.0, 1.0, 1.0, 0.25] {
        assert_eq!(say(&app, &id, json!({"score": score})).await.0, 200);
    }
    let other = json!({"score": 0.75, "source": "second-user"});
    assert_eq!(say(&app, &id, other).await.1["label"], 0.5);
    assert_eq!(metric(&app, "wattgate_outcomes_total").await, 2000);
    let (given, taken) = (
        metric(&app, "wattgate_outcome_score_total").await,
        metric(&app, "wattgate_outcome_score_withdrawn_total").await,
    );
    assert_eq!(given - taken, 1000, "{given} {taken}");
    let records = app.stop().await;
    assert_eq!(records.iter().map(|record| record.label).collect::<Vec<_>>(), [Some(0.5)]);
}

#[tokio::test]
async fn feedback_for_unknown_requests_or_with_bad_fields_is_refused() {
    let upstream = MockUpstream::start().await;
    let app = gateway(&upstream, "").await;
    let id = answered(&app, "one").await;
    let (status, reply) = say(&app, "no-such-id", json!({"score": 1})).await;
    assert_eq!((status, &reply["error"]["code"]), (404, &json!("request_not_found")));
    assert!(reply["error"]["message"].as_str().unwrap().contains("only ended ones"), "{reply}");
    for wrong in [
        json!({}),
        json!({"score": 1.5}),
        json!({"score": -0.1}),
        json!({"score": "good"}),
        json!({"score": 1, "verdict": "good"}),
        json!({"verdict": "fine"}),
        json!({"score": 1, "source": "judge:x"}),
        json!({"score": 1, "source": ""}),
        json!({"score": 1, "comment": "x".repeat(20_000)}),
        json!({"score": 1, "stars": 5}),
    ] {
        let (status, reply) = say(&app, &id, wrong.clone()).await;
        assert_eq!((status, &reply["error"]["code"]), (400, &json!("invalid_value")), "{wrong}");
    }
    assert_eq!(metric(&app, "wattgate_outcomes_total").await, 0);
}

#[tokio::test]
async fn a_comment_is_logged_only_if_prompts_are() {
    for (prompts, kept) in [("off", false), ("hash", false), ("full", true)] {
        let upstream = MockUpstream::start().await;
        let serving = Serving::start(
            &(cloud_model("cloud", 3.0, &upstream)
                + &format!("[traffic]\nprompts = \"{prompts}\"\n")),
        );
        let url = |path: &str| format!("{}{path}", serving.url);
        let client = client();
        let asked = client.post(url("/v1/chat/completions")).json(&ask("auto", "hello")).send();
        let answer: Value = asked.await.unwrap().json().await.unwrap();
        let id = &answer["wattgate"]["request_id"];
        let body = json!({"request_id": id, "verdict": "bad", "comment": "far too Xanthic"});
        assert_eq!(
            client.post(url("/v1/feedback")).json(&body).send().await.unwrap().status(),
            200
        );
        let log = serving.dir.path().join("data/traffic");
        // Written before the kill, so the next run finds it.
        eventually(|| async { (records(&log).first()?.label == Some(0.0)).then_some(()) }).await;
        let dir = serving.kill();
        let file = std::fs::read_dir(dir.path().join("data/traffic")).unwrap().next().unwrap();
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        assert_eq!(text.contains("Xanthic"), kept, "{prompts}: {text}");
        let process_log = std::fs::read_to_string(dir.path().join("process.log")).unwrap();
        assert!(!process_log.contains("Xanthic"), "{process_log}");
    }
}

#[tokio::test]
async fn a_verdict_on_an_answer_of_an_earlier_run_is_joined_from_the_log() {
    let upstream = MockUpstream::start().await;
    let config = cloud_model("cloud", 3.0, &upstream);
    let earlier = Serving::start(&config);
    let url = format!("{}/v1/chat/completions", earlier.url);
    let answer = client().post(url).json(&ask("auto", "hello")).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    let id = answer["wattgate"]["request_id"].as_str().unwrap().to_owned();
    let log = earlier.dir.path().join("data/traffic");
    eventually(|| async { (records(&log).len() == 1).then_some(()) }).await;
    let later = Serving::start_in(earlier.kill());
    let say = async |id: &str| {
        let body = json!({"request_id": id, "score": 0.25});
        let reply = client().post(format!("{}/v1/feedback", later.url)).json(&body).send();
        let reply = reply.await.unwrap();
        (reply.status().as_u16(), reply.json::<Value>().await.unwrap())
    };
    let (status, reply) = say(&id).await;
    assert_eq!((status, &reply["score"], &reply["label"]), (200, &json!(0.25), &Value::Null));
    let log = later.dir.path().join("data/traffic");
    eventually(|| async { (records(&log)[0].label == Some(0.25)).then_some(()) }).await;
    // An id with a valid timestamp that belongs to no request, and one without a timestamp.
    let nobodys = id[..id.len() - 3].to_owned() + if id.ends_with("abc") { "cba" } else { "abc" };
    for id in [&nobodys, "7d444840-9dc0-41d1-b245-5ffdce74fad2", "../../etc/passwd"] {
        assert_eq!(say(id).await.0, 404, "{id}");
    }
}

/// The implicit signals in the log.
async fn signs(app: &TestApp, count: usize) -> Vec<(String, ImplicitSignal)> {
    let dir = app.log_dir();
    eventually(|| async {
        let lines = read_log(&dir).ok()?.map(Result::unwrap);
        let signs: Vec<_> = lines
            .filter_map(|line| match line {
                Line::Annotation(Annotation::Signal(signal)) => {
                    Some((signal.request_id.to_string(), signal.signal))
                }
                _ => None,
            })
            .collect();
        (signs.len() >= count).then_some(signs)
    })
    .await
}

#[tokio::test]
async fn a_repeated_prompt_is_an_implicit_signal_and_no_outcome() {
    let upstream = MockUpstream::start().await;
    let app = gateway(&upstream, "").await;
    let first = answered(&app, "the same").await;
    answered(&app, "another").await;
    // Another session of the same client asks the same by chance.
    let request = app.request("/v1/chat/completions").header("x-wattgate-session", "b");
    assert_eq!(request.json(&ask("auto", "the same")).send().await.unwrap().status(), 200);
    assert_eq!(metric(&app, "wattgate_weak_signals_total").await, 0);
    answered(&app, "the same").await;
    assert_eq!(signs(&app, 1).await, [(first.clone(), ImplicitSignal::Retry)]);
    assert_eq!(metric(&app, "wattgate_outcomes_total").await, 0);
    assert_eq!(app.get(&format!("/v1/requests/{first}")).await.json.get("label"), None);
}

#[tokio::test]
async fn a_disconnect_during_the_answer_is_an_implicit_signal() {
    let upstream = MockUpstream::start().await;
    let app = gateway(&upstream, "").await;
    upstream.respond_with(Mode::HangMidAnswer);
    let mut response =
        app.send("/v1/chat/completions", &ask_streaming("auto", "a b c d e f")).await;
    assert!(response.chunk().await.unwrap().is_some());
    let id = response.headers()["x-wattgate-request-id"].to_str().unwrap().to_owned();
    drop(response);
    assert_eq!(signs(&app, 1).await, [(id, ImplicitSignal::Abandon)]);
    // A non-streamed answer that was never delivered gives no signal.
    upstream.until_open(0).await;
    app.leave("/v1/chat/completions", &ask("auto", "whole"), upstream.until_open(1)).await;
    upstream.until_open(0).await;
    app.until_logged(2).await;
    assert_eq!(metric(&app, "wattgate_weak_signals_total").await, 1000);
}

#[tokio::test]
async fn an_outcome_line_of_another_version_is_reported_and_not_joined() {
    let upstream = MockUpstream::start().await;
    let app = gateway(&upstream, "").await;
    let id = answered(&app, "one").await;
    app.until_logged(1).await;
    let dir = app.log_dir();
    let file = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&file).unwrap();
    let more = format!(
        "{{\"kind\":\"feedback\",\"version\":9,\"unix_ms\":1,\"request_id\":\"{id}\",\"source\":{{\"client\":\"u\"}},\"score\":1}}\n{{\"kind\":\"feedb"
    );
    std::fs::write(&file, text + &more).unwrap();
    let lines: Vec<Line> = read_log(&dir).unwrap().map(Result::unwrap).collect();
    let [Line::Record(record), Line::Bad { line: 2, reason, .. }, Line::Torn] = &lines[..] else {
        panic!("{lines:?}")
    };
    assert!(record.label.is_none() && reason.contains("version 9"), "{reason}");
}
