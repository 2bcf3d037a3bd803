//! Refusals and whole answers of upstreams that do not keep to OpenAI's forms, and what they mean
//! for later requests.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::rig::app::{TestApp, ask, ask_streaming, cloud_model, eventually};
use crate::rig::mock_upstream::{MockUpstream, Mode};
use crate::rig::unruly_upstream::{Step, UnrulyUpstream, whole};

const ANSWER: &str = r#"{"id":"u","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}]}"#;
const JSON: &str = "content-type: application/json\r\n";

/// A model `m` at `upstream`.
async fn one_model(upstream: &MockUpstream) -> TestApp {
    TestApp::start(&cloud_model("m", 3.0, upstream)).await
}

#[tokio::test]
async fn what_one_client_sends_shuts_no_model() {
    let refusals: [(u16, &str, &str); 12] = [
        (400, "application/json", r#"{"error":{"message":"no"}}"#),
        (400, "text/html", "<html>no</html>"),
        (400, "text/plain", "no"),
        (400, "text/plain", ""),
        (402, "application/json", r#"{"error":{"message":"fewer tokens"}}"#),
        (
            403,
            "application/json",
            r#"{"error":{"message":"flagged","metadata":{"reasons":["moderation"]}}}"#,
        ),
        (404, "application/json", r#"{"error":{"message":"no such model"}}"#),
        (409, "text/plain", "no"),
        (413, "text/html", "<html>no</html>"),
        (422, "application/json", r#"{"detail":[{"loc":["body","x"],"msg":"no"}]}"#),
        (429, "application/json", r#"{"error":{"message":"no"}}"#),
        (451, "application/json", r#"{"error":{"message":"no"}}"#),
    ];
    for (status, kind, body) in refusals {
        let upstream = MockUpstream::start().await;
        let app = one_model(&upstream).await;
        upstream.respond_with(Mode::Verbatim(status, kind, body));
        for _ in 0..6 {
            assert_ne!(app.chat(&ask("m", "hi")).await.status, 200);
        }
        upstream.respond_with(Mode::Answer);
        let innocent = app.chat(&ask("m", "hi")).await;
        assert_eq!(innocent.status, 200, "{status} {body}: {}", innocent.text);
        assert_eq!(upstream.requests().len(), 7, "{status}");
    }
}

#[tokio::test]
async fn a_refusal_reaches_the_client_with_its_reason_and_status() {
    let cases: [(u16, &str, u16, &str); 9] = [
        (400, r#"[{"error":{"message":"Gemini says no"}}]"#, 400, "Gemini says no"),
        (422, r#"{"detail":[{"loc":["body","x"],"msg":"wrong"}]}"#, 400, "x: wrong"),
        (
            400,
            r#"{"object":"error","message":{"detail":[{"loc":["body","x"],"msg":"wrong"}]}}"#,
            400,
            "x: wrong",
        ),
        (400, r#"{"errors":[{"message":"no"}]}"#, 400, "no"),
        (400, "prompt is wrong", 400, "prompt is wrong"),
        (403, r#"{"error":{"message":"Your input was flagged"}}"#, 403, "Your input was flagged"),
        (413, "<html>nginx</html>", 413, "HTTP 413"),
        (404, r#"{"error":{"message":"No endpoints found"}}"#, 404, "No endpoints found"),
        (429, r#"{"error":{"message":"Slow down, sk-abcdefgh"}}"#, 429, "Slow down, [key]"),
    ];
    for (status, body, seen, message) in cases {
        let upstream = MockUpstream::start().await;
        let app = one_model(&upstream).await;
        upstream.respond_with(Mode::Verbatim(status, "application/json", body));
        let reply = app.chat(&ask("m", "hi")).await;
        assert_eq!(reply.status, seen, "{body}: {}", reply.text);
        let said = reply.json["error"]["message"].as_str().unwrap();
        assert!(said.contains(message) && !said.contains("nginx"), "{said}");
    }
}

#[tokio::test]
async fn what_one_server_lacks_the_next_one_may_have() {
    let lacks: [(u16, &str); 8] = [
        (400, r#"{"object":"error","message":"The model is not multimodal."}"#),
        (400, r#"{"message":"\"auto\" tool choice requires --enable-auto-tool-choice"}"#),
        (
            400,
            r#"{"error":{"message":"Use 'max_completion_tokens' instead.","code":"unsupported_parameter"}}"#,
        ),
        (
            400,
            r#"{"message":"The input (9000 tokens) is longer than the model's context length (8192 tokens)."}"#,
        ),
        (
            413,
            r#"{"error":{"message":"Request too large for model on tokens per minute (TPM)","code":"rate_limit_exceeded"}}"#,
        ),
        (413, "<html>nginx</html>"),
        (
            422,
            r#"{"detail":[{"type":"extra_forbidden","loc":["body","top_k"],"msg":"Extra inputs are not permitted"}]}"#,
        ),
        (403, r#"{"error":{"message":"Your input was flagged"}}"#),
    ];
    for (status, body) in lacks {
        let (first, second) = (MockUpstream::start().await, MockUpstream::start().await);
        let dear = cloud_model("second", 3.0, &second).replace("\"small\"", "\"frontier\"");
        let app = TestApp::start(&(cloud_model("first", 3.0, &first) + &dear)).await;
        first.respond_with(Mode::Verbatim(status, "application/json", body));
        let reply = app.chat(&ask("auto", "hi")).await;
        assert_eq!(reply.status, 200, "{body}: {}", reply.text);
        assert_eq!((first.requests().len(), &reply.receipt()["model"]), (1, &json!("second")));
    }
}

#[tokio::test]
async fn an_upstream_that_asks_for_rest_is_not_asked_before() {
    let upstream = MockUpstream::start().await;
    let app = one_model(&upstream).await;
    upstream.respond_with(Mode::RateLimited("1.5"));
    let first = app.chat(&ask("m", "hi")).await;
    assert_eq!(first.status, 429, "{}", first.text);
    upstream.respond_with(Mode::Answer);
    let early = app.chat(&ask("m", "hi")).await;
    assert!(matches!(early.status, 429 | 503), "{}", early.text);
    assert_eq!(upstream.requests().len(), 1);
    let limited = Instant::now();
    eventually(|| async { (app.chat(&ask("m", "hi")).await.status == 200).then_some(()) }).await;
    assert!(limited.elapsed() < Duration::from_secs(10), "one refusal shuts no model");
}

/// A gateway whose model has failed until it was shut, and may be asked again.
async fn about_to_be_probed(upstream: &MockUpstream) -> TestApp {
    let app = one_model(upstream).await;
    for _ in 0..5 {
        app.chat(&ask("m", "play 500")).await;
    }
    let ready = || async { (app.get("/v1/models/m").await.json["ready"] == true).then_some(()) };
    eventually(ready).await;
    app
}

#[tokio::test]
async fn a_probe_that_is_being_answered_lets_the_others_in() {
    let upstream = MockUpstream::start().await;
    let app = about_to_be_probed(&upstream).await;
    // It never ends: half an answer, then silence.
    let mut probe =
        app.send("/v1/chat/completions", &ask_streaming("m", "play hang-mid a b c d")).await;
    assert!(probe.chunk().await.unwrap().is_some());
    for _ in 0..3 {
        let beside = app.chat(&ask("m", "hi")).await;
        assert_eq!(beside.status, 200, "{}", beside.text);
    }
}

#[tokio::test]
async fn a_probe_without_a_byte_yet_shuts_nobody_out() {
    let upstream = MockUpstream::start().await;
    let app = about_to_be_probed(&upstream).await;
    let beside = async {
        app.until_in_flight("m", 1).await;
        for _ in 0..3 {
            let beside = app.chat(&ask("m", "hi")).await;
            assert_eq!(beside.status, 200, "{}", beside.text);
        }
    };
    let silent = ask("m", "play hang");
    tokio::select! {
        probe = app.chat(&silent) => panic!("answered: {}", probe.text),
        () = beside => {}
    }
}

#[tokio::test]
async fn a_kept_connection_that_closes_as_the_request_arrives_is_replaced_once() {
    let kept = vec![whole(200, JSON, ANSWER), Step::Next];
    let cases = [
        (vec![kept.clone(), vec![Step::Close], kept.clone()], 200, 3),
        // Half a response is an answer that broke.
        (
            vec![kept.clone(), vec![Step::Say("HTTP/1.1 200 OK\r\ncontent-".into())], kept.clone()],
            503,
            2,
        ),
        (vec![kept.clone(), vec![Step::Close], vec![Step::Close], kept.clone()], 503, 3),
        // A fresh connection is not replaced.
        (vec![vec![Step::Close], kept], 503, 1),
    ];
    for (scripts, status, requests) in cases {
        let upstream = UnrulyUpstream::start(scripts).await;
        let app = TestApp::start(&upstream.model("")).await;
        let mut reply = app.chat(&ask("m", "hi")).await;
        if requests > 1 {
            assert_eq!(reply.status, 200, "{}", reply.text);
            reply = app.chat(&ask("m", "hi")).await;
        }
        assert_eq!((reply.status, upstream.requests().len()), (status, requests), "{}", reply.text);
    }
}

#[tokio::test]
async fn an_upstream_that_refuses_stream_options_is_asked_without_them() {
    let refusal = whole(
        422,
        JSON,
        r#"{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]}"#,
    );
    let stream = whole(
        200,
        "content-type: text/event-stream\r\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
    );
    let upstream =
        UnrulyUpstream::start(vec![vec![refusal, Step::Next], vec![stream.clone(), Step::Next]])
            .await;
    let app = TestApp::start(&upstream.model("")).await;
    for _ in 0..2 {
        assert_eq!(app.stream(&ask_streaming("m", "hi")).await.content(), "Hello");
    }
    let with: Vec<bool> =
        upstream.requests().iter().map(|body| body.contains("stream_options")).collect();
    assert_eq!(with, [true, false, false], "it is remembered");

    let upstream = UnrulyUpstream::start(vec![vec![stream, Step::Next]]).await;
    let app = TestApp::start(&upstream.model("stream_usage = false")).await;
    assert_eq!(app.stream(&ask_streaming("m", "hi")).await.content(), "Hello");
    assert!(!upstream.requests()[0].contains("stream_options"));
}

#[tokio::test]
async fn a_body_is_asked_for_unpacked_and_may_have_many_headers() {
    let many = (0..150).map(|number| format!("x-header-{number}: value\r\n"));
    let headers: String = std::iter::once(JSON.to_owned()).chain(many).collect();
    let upstream = UnrulyUpstream::start(vec![vec![whole(200, &headers, ANSWER)]]).await;
    let app = TestApp::start(&upstream.model("")).await;
    assert_eq!(app.chat(&ask("m", "hi")).await.content(), "Hello");

    let upstream = MockUpstream::start().await;
    let app = one_model(&upstream).await;
    app.chat(&ask("m", "hi")).await;
    assert_eq!(upstream.requests()[0].headers["accept-encoding"], "identity");
}

#[tokio::test]
async fn gateways_can_stand_behind_each_other() {
    let upstream = MockUpstream::start().await;
    let nearest = one_model(&upstream).await;
    let behind = |app: &TestApp| {
        format!("[models.m]\nability = 3.0\n[models.m.openai]\nbase_url = \"{}\"\n", app.url("/v1"))
    };
    let middle = TestApp::start(&behind(&nearest)).await;
    let far = TestApp::start(&behind(&middle)).await;
    let whole = far.chat(&ask("m", "hi")).await;
    assert_eq!(
        (whole.status, whole.text.matches("\"wattgate\":").count()),
        (200, 1),
        "{}",
        whole.text
    );
    for asks in [false, true] {
        let mut request = ask_streaming("m", "hi");
        request["stream_options"] = json!({"include_usage": asks});
        let text = far.send("/v1/chat/completions", &request).await.text().await.unwrap();
        assert_eq!(text.matches("\"wattgate\":").count(), 1, "{text}");
        assert_eq!(text.matches("\"usage\":{").count(), usize::from(asks), "{text}");
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    }
    let joules = &whole.receipt()["energy"]["joules"];
    assert!(joules.as_f64().unwrap() > 0.0, "the energy that the first gateway knows");
}

#[tokio::test]
async fn a_model_that_cannot_is_not_asked() {
    let (blind, seeing) = (MockUpstream::start().await, MockUpstream::start().await);
    let able = cloud_model("seeing", 3.0, &seeing).replace("\"small\"", "\"frontier\"");
    let config = format!(
        "{}capabilities = {{ media = false, tools = false }}\n{able}",
        cloud_model("blind", 3.0, &blind)
    );
    let app = TestApp::start(&config).await;
    let picture = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}});
    let with_picture =
        json!({"model": "auto", "messages": [{"role": "user", "content": [picture]}]});
    assert_eq!(app.chat(&with_picture).await.receipt()["model"], "seeing");
    let mut with_tool = ask("auto", "hi");
    with_tool["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
    assert_eq!(app.chat(&with_tool).await.receipt()["model"], "seeing");
    assert_eq!(app.chat(&ask("auto", "hi")).await.receipt()["model"], "blind");
    let asked: Vec<Value> = blind.requests().into_iter().map(|one| one.body).collect();
    assert_eq!(asked.len(), 1);
}
