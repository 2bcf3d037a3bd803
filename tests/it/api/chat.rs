//! `POST /v1/chat/completions` with one cloud model: answers, receipts, streams, bad input,
//! records.

use serde_json::{Value, json};

use crate::rig::app::{TestApp, ask, ask_streaming, cloud_model};
use crate::rig::mock_upstream::{MockUpstream, Mode};

async fn gateway() -> (TestApp, MockUpstream) {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&cloud_model("cloud", 3.0, &upstream)).await;
    (app, upstream)
}

#[tokio::test]
async fn an_answer_carries_its_receipt() {
    let (app, _upstream) = gateway().await;
    let reply = app.chat(&ask("auto", "What is 2+2?")).await;
    assert_eq!((reply.status, reply.content()), (200, &*MockUpstream::reply_to("What is 2+2?")));
    let receipt = reply.receipt();
    assert_eq!(receipt["model"], "cloud");
    assert_eq!(receipt["route"], "cloud");
    assert_eq!(receipt["policy"], "default");
    assert_eq!(receipt["attempts"][0]["outcome"], "answered");
    assert_eq!(receipt["candidates"][0]["excluded"], Value::Null);
    let energy = &receipt["energy"];
    assert_eq!((&energy["quality"], &energy["source"]), (&json!("assumed"), &json!("cloud_table")));
    let (low, mid, high) =
        (energy["low"].as_f64(), energy["joules"].as_f64(), energy["high"].as_f64());
    assert!(low > Some(0.0) && low < mid && mid < high, "{energy}");
    assert_eq!(reply.header("x-wattgate-model"), "cloud");
    assert_eq!(reply.header("x-wattgate-route"), "cloud");
    assert_eq!(reply.header("x-wattgate-request-id"), receipt["request_id"].as_str().unwrap());
}

#[tokio::test]
async fn unknown_fields_go_upstream_and_the_clients_key_does_not() {
    let (app, upstream) = gateway().await;
    let mut request = ask("cloud", "hello");
    request["x_vendor_option"] = json!({"deep": [1, 2.50, "three"]});
    assert_eq!(app.chat(&request).await.status, 200);
    let received = &upstream.requests()[0];
    assert!(
        received.raw.contains(r#""x_vendor_option":{"deep":[1,2.5,"three"]}"#),
        "{}",
        received.raw
    );
    assert_eq!(received.body["model"], "cloud-upstream");
    assert!(!format!("{:?}", received.headers).contains("sk-the-clients-own-key"));
}

#[tokio::test]
async fn a_stream_is_forwarded_and_ends_with_the_receipt() {
    let (app, _upstream) = gateway().await;
    let sse = app.stream(&ask_streaming("auto", "count to three")).await;
    assert!(sse.done);
    assert_eq!(sse.content(), MockUpstream::reply_to("count to three"));
    let last = sse.chunks.last().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    assert_eq!(sse.receipt()["model"], "cloud");
    assert!(sse.chunks.iter().all(|chunk| chunk["usage"].is_null()), "nobody asked for usage");
    assert!(
        sse.comments.iter().any(|comment| comment.starts_with("energy {")),
        "{:?}",
        sse.comments
    );
}

#[tokio::test]
async fn usage_is_a_separate_chunk_when_requested() {
    let (app, _upstream) = gateway().await;
    let mut request = ask_streaming("auto", "hi");
    request["stream_options"] = json!({"include_usage": true});
    let sse = app.stream(&request).await;
    let last = sse.chunks.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert!(last["usage"]["total_tokens"].as_u64() > Some(0), "{last}");
    assert_eq!(sse.receipt()["route"], "cloud");
}

#[tokio::test]
async fn characters_split_between_packets_arrive_whole() {
    let (app, upstream) = gateway().await;
    upstream.respond_with(Mode::TinyWrites);
    let sse = app.stream(&ask_streaming("auto", "ümläute ☁")).await;
    assert_eq!(sse.content(), MockUpstream::reply_to("ümläute ☁"));
}

#[tokio::test]
async fn the_receipt_of_an_answered_request_can_be_fetched() {
    let (app, _upstream) = gateway().await;
    let reply = app.chat(&ask("auto", "remember me")).await;
    let id = reply.receipt()["request_id"].as_str().unwrap();
    let record = app.settled(id).await;
    assert_eq!(record["outcome"], "answered");
    assert_eq!(record["attempts"][0]["joules"], reply.receipt()["attempts"][0]["joules"]);
    let expected = record["usage"]["prompt_tokens"].as_f64().unwrap() / 1e6
        + record["usage"]["completion_tokens"].as_f64().unwrap() * 10.0 / 1e6;
    let dollars = record["dollars"].as_f64().unwrap();
    assert!((dollars - expected).abs() < 1e-12, "{dollars} {expected}");
    // OpenAI's SDKs know the completion id only.
    assert_eq!(app.get(&format!("/v1/requests/chatcmpl-{id}")).await.status, 200);
    assert_eq!(app.get("/v1/requests/nobody").await.error().0, 404);
    let logged = app.until_logged(1).await;
    assert_eq!(&*logged[0].receipt.request_id, id);
    assert!(logged[0].prompt.is_none(), "prompts are off by default");
}

#[tokio::test]
async fn nothing_of_a_prompt_is_logged_unless_asked_for() {
    let (app, _upstream) = gateway().await;
    app.chat(&ask("auto", "my-secret-word")).await;
    let logged = app.until_logged(1).await;
    assert!(!serde_json::to_string(&logged).unwrap().contains("my-secret-word"));
    let metrics = app.get("/metrics").await.text;
    assert!(!metrics.contains("my-secret-word"));
}

#[tokio::test]
async fn route_explains_without_running_anything() {
    let (app, upstream) = gateway().await;
    let reply = app.post("/v1/route", &ask("auto", "hello")).await;
    assert_eq!((reply.status, &reply.json["model"]), (200, &json!("cloud")));
    let p = reply.json["candidates"][0]["p"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&p));
    assert!(reply.json["candidates"][0]["joules"].as_f64() > Some(0.0));
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn models_lists_models_and_policies() {
    let (app, _upstream) = gateway().await;
    let reply = app.get("/v1/models").await;
    let models = reply.json["data"].as_array().unwrap();
    let ids: Vec<&str> = models.iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["auto", "auto/default", "cloud"]);
    assert_eq!(app.get("/v1/models/auto/default").await.status, 200);
    assert_eq!(app.get("/v1/models/nobody").await.error().2, "model_not_found");
    assert_eq!(app.get("/healthz").await.status, 200);
    assert_eq!(app.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn local_only_fails_closed() {
    let (app, upstream) = gateway().await;
    for value in ["true", "1", "yes", ""] {
        let request = app.request("/v1/chat/completions").header("x-wattgate-local-only", value);
        let response = request.json(&ask("auto", "private")).send().await.unwrap();
        assert_eq!(response.status(), 503, "{value}");
    }
    // Nor is local-only lifted by a request that names the cloud model.
    let request = app.request("/v1/chat/completions").header("x-wattgate-local-only", "true");
    let response = request.json(&ask("cloud", "private")).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn each_bad_request_gets_one_error_that_names_the_field() {
    let (app, upstream) = gateway().await;
    let message = json!([{"role": "user", "content": "hi"}]);
    let cases = [
        (json!({"model": "auto"}), 400, "invalid_value", "missing field `messages`"),
        (json!({"model": "auto", "messages": []}), 400, "invalid_value", "messages"),
        (json!({"messages": message}), 400, "invalid_value", "missing field `model`"),
        (json!({"model": "nobody", "messages": message}), 404, "model_not_found", "nobody"),
        (
            json!({"model": "auto/nobody", "messages": message}),
            404,
            "model_not_found",
            "auto/nobody",
        ),
        (json!({"model": "auto", "messages": "hi"}), 400, "invalid_value", "messages"),
        (
            json!({"model": "auto", "messages": [{"content": "hi"}]}),
            400,
            "invalid_value",
            "missing field `messages[0].role`",
        ),
        (
            json!({"model": "auto", "messages": [{"role": "user", "content": 7}]}),
            400,
            "invalid_value",
            "messages[0].content",
        ),
        (
            json!({"model": "auto", "messages": message, "temperature": -1}),
            400,
            "invalid_value",
            "temperature",
        ),
        (json!({"model": "auto", "messages": message, "top_p": -1}), 400, "invalid_value", "top_p"),
        (
            json!({"model": "auto", "messages": message, "logit_bias": {"hello": 1}}),
            400,
            "invalid_value",
            "logit_bias",
        ),
        (
            json!({"model": "auto", "messages": message, "max_tokens": -5}),
            400,
            "invalid_value",
            "max_tokens",
        ),
        (json!({"model": "auto", "messages": message, "stop": [1]}), 400, "invalid_value", "stop"),
        (json!({"model": "auto", "messages": message, "n": 0}), 400, "invalid_value", "n"),
        (
            json!({"model": "auto", "messages": message, "stream": true, "stream_options": []}),
            400,
            "invalid_value",
            "stream_options",
        ),
        (json!([1, 2]), 400, "invalid_value", "a JSON object"),
    ];
    for (body, status, code, mentioned) in cases {
        let reply = app.chat(&body).await;
        let error = &reply.json["error"];
        assert_eq!(
            (reply.status, error["code"].as_str()),
            (status, Some(code)),
            "{body}: {}",
            reply.text
        );
        assert_eq!(error["type"], "invalid_request_error", "{body}");
        assert!(error["message"].as_str().unwrap().contains(mentioned), "{body}: {}", reply.text);
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn unknown_paths_methods_and_bodies_get_an_error_in_openai_format() {
    let (app, _upstream) = gateway().await;
    for garbage in ["", "{", "not json", "{\"model\":\"auto\"", "{} trailing", "\u{1}"] {
        let request = app.request("/v1/chat/completions").body(garbage);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 400, "{garbage:?}");
        let body: Value = response.json().await.unwrap();
        assert!(body["error"]["message"].is_string(), "{garbage:?}: {body}");
    }
    assert_eq!(
        app.get("/v1/chat/completions").await.error(),
        (405, "invalid_request_error", "method_not_allowed")
    );
    assert_eq!(app.get("/nowhere").await.error(), (404, "invalid_request_error", "unknown_path"));
    let response =
        app.request("/v1/chat/completions").body(vec![b' '; 33 << 20]).send().await.unwrap();
    assert_eq!(response.status(), 413);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "body_too_large");
}

#[tokio::test]
async fn a_broken_stream_ends_with_an_error_and_without_done() {
    let (app, upstream) = gateway().await;
    for mode in [Mode::CutMidAnswer, Mode::ErrorMidStream] {
        upstream.respond_with(mode.clone());
        let sse = app
            .stream(&ask_streaming("auto", "a rather long question, so that it has a middle"))
            .await;
        assert!(!sse.done, "{mode:?}");
        let last = sse.chunks.last().unwrap();
        assert!(last["error"]["message"].is_string(), "{mode:?}: {last}");
        let id = last["wattgate"]["request_id"].as_str().unwrap();
        assert_eq!(app.settled(id).await["outcome"], "failed", "{mode:?}");
    }
}

#[tokio::test]
async fn a_client_disconnect_is_recorded_and_its_upstream_request_cancelled() {
    let (app, upstream) = gateway().await;
    upstream.respond_with(Mode::HangMidAnswer);
    let mut response =
        app.send("/v1/chat/completions", &ask_streaming("auto", "leave me halfway")).await;
    assert!(response.chunk().await.unwrap().is_some());
    upstream.until_open(1).await;
    drop(response);
    upstream.until_open(0).await;
    let logged = app.until_logged(1).await;
    assert_eq!(logged[0].outcome.label(), "cancelled");
    assert_eq!(logged[0].receipt.attempts[0].outcome.label(), "cancelled");
}

#[tokio::test]
async fn every_request_is_recorded_once_however_it_ends() {
    let (app, _upstream) = gateway().await;
    let fates = ["hello", "play 500", "play garbage", "play cut-mid", "play slow", "play 401"];
    let prompts: Vec<&str> = fates.iter().copied().cycle().take(48).collect();
    let requests = prompts.iter().enumerate().map(|(turn, prompt)| {
        let app = &app;
        async move {
            let body =
                if turn % 2 == 0 { ask("auto", prompt) } else { ask_streaming("auto", prompt) };
            let response = app.send("/v1/chat/completions", &body).await;
            let _ = response.text().await;
        }
    });
    futures::future::join_all(requests).await;
    let records = app.stop().await;
    assert_eq!(records.len(), prompts.len());
    let mut ids: Vec<_> = records.iter().map(|record| record.receipt.request_id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), prompts.len());
}
