//! No client takes everything: places at a model, connections, memory for bodies.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::rig::app::{TestApp, ask, ask_streaming, client, cloud_model, eventually};
use crate::rig::fake_engine::FakeModel;
use crate::rig::local_models::local_model;
use crate::rig::mock_upstream::{MockUpstream, Mode};
use crate::rig::raw_http::{connect_from, h2, is_silent, post, read_to_end, read_until, sent};

const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Asks with a key; the status and code of a refusal.
async fn asked(app: &TestApp, key: &str) -> (u16, String, bool) {
    let request = client().post(app.url("/v1/chat/completions")).bearer_auth(key);
    let reply = request.json(&ask("cloud", "hi")).send().await.unwrap();
    let (status, waits) = (reply.status().as_u16(), reply.headers().contains_key("retry-after"));
    let body: serde_json::Value = reply.json().await.unwrap();
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned(), waits)
}

/// The order in which requests with these keys are answered, by a model with one slot, if all of
/// them wait before the first is.
async fn order_of_answers(app: &TestApp, keys: &[&'static str]) -> Vec<&'static str> {
    let mut busy = ask_streaming("smol", "Count for long.");
    busy["max_tokens"] = json!(900);
    let mut running = app.send("/v1/chat/completions", &busy).await;
    assert!(running.chunk().await.unwrap().is_some());
    let mut waiting = JoinSet::new();
    for (&key, before) in keys.iter().zip(1..) {
        let mut body = ask("smol", "hi");
        body["max_tokens"] = json!(2);
        let request = client().post(app.url("/v1/chat/completions")).bearer_auth(key).json(&body);
        waiting.spawn(async move {
            assert_eq!(request.send().await.unwrap().status(), 200);
            key
        });
        app.until_in_flight("smol", before + 1).await;
    }
    drop(running);
    let mut order = Vec::new();
    while let Some(key) = waiting.join_next().await {
        order.push(key.unwrap());
    }
    order
}

#[tokio::test]
async fn waiting_requests_are_answered_in_turn_per_client() {
    let fake = FakeModel::new("turns", "load_ms = 1\nstep_ms = 30");
    let app = TestApp::start_fake(&local_model("smol", fake.path(), "slots = 1")).await;
    app.until_loaded("smol").await;
    let keys = ["greedy", "greedy", "greedy", "greedy", "modest", "modest", "late"];
    let order = order_of_answers(&app, &keys).await;
    assert_eq!(order, ["greedy", "modest", "late", "greedy", "modest", "greedy", "greedy"]);
}

#[tokio::test]
async fn one_client_leaves_places_at_a_model_for_others() {
    let upstream = MockUpstream::start().await;
    upstream.respond_with(Mode::HangBeforeHeaders);
    let config = cloud_model("cloud", 1.0, &upstream) + "max_in_flight = 16\n";
    let app = TestApp::start(&config).await;
    let mut hanging = Vec::new();
    for _ in 0..14 {
        let request =
            post("/v1/chat/completions", "authorization: Bearer greedy\r\n", &ask("cloud", "hi"));
        hanging.push(sent(app.address, &request).await);
    }
    app.until_in_flight("cloud", 14).await;
    let refused = (429, "client_share".to_owned(), true);
    assert_eq!(asked(&app, "greedy").await, refused);
    // Neither a user's name nor a forwarded address makes another client.
    let disguised = client()
        .post(app.url("/v1/chat/completions"))
        .bearer_auth("greedy")
        .header("x-forwarded-for", "10.9.8.7")
        .json(&json!({"model": "cloud", "user": "other", "messages": [{"role": "user", "content": "x"}]}))
        .send();
    assert_eq!(disguised.await.unwrap().status(), 429);
    upstream.respond_with(Mode::Answer);
    assert_eq!(asked(&app, "modest").await.0, 200);
    // Invented keys take one more place of this address, and the last one is another address's.
    upstream.respond_with(Mode::HangBeforeHeaders);
    for key in ["one", "two"] {
        let headers = format!("authorization: Bearer {key}\r\n");
        let request = post("/v1/chat/completions", &headers, &ask("cloud", "hi"));
        hanging.push(sent(app.address, &request).await);
    }
    app.until_in_flight("cloud", 15).await;
    assert_eq!(asked(&app, "three").await, refused);
    upstream.respond_with(Mode::Answer);
    let mut other = connect_from(OTHER, app.address).await;
    let request = post("/v1/chat/completions", "connection: close\r\n", &ask("cloud", "hi"));
    other.write_all(&request).await.unwrap();
    assert!(read_to_end(&mut other).await.starts_with("HTTP/1.1 200"));
    drop(hanging);
    app.until_in_flight("cloud", 0).await;
}

#[tokio::test]
async fn one_request_of_many_choices_leaves_places_too() {
    let fake = FakeModel::new("choices", "load_ms = 1\nstep_ms = 5");
    let config = local_model("smol", fake.path(), "slots = 2\nqueue = 14");
    let app = TestApp::start_fake(&config).await;
    app.until_loaded("smol").await;
    let mut many = ask("smol", "long");
    many["n"] = json!(16);
    let reply = app.chat(&many).await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    assert!(reply.text.contains("at most 14"), "{}", reply.text);
    many["n"] = json!(14);
    many["stream"] = json!(true);
    let running = app.send("/v1/chat/completions", &many).await;
    app.until_in_flight("smol", 14).await;
    let refused = app.chat(&ask("smol", "hi")).await;
    assert_eq!(refused.error(), (429, "rate_limit_error", "client_share"), "{}", refused.text);
    let request = client().post(app.url("/v1/chat/completions")).bearer_auth("other");
    let mut short = ask_streaming("smol", "hi");
    short["max_tokens"] = json!(1);
    let asking = request.json(&short).send();
    let freeing = async {
        app.until_in_flight("smol", 15).await;
        drop(running);
    };
    let ((), reply) = tokio::join!(freeing, asking);
    assert_eq!(reply.unwrap().status(), 200);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_after_a_moment_and_others_have_a_share() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start_with(&cloud_model("cloud", 1.0, &upstream), |config| {
        config.server.max_connections = 16;
    })
    .await;
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..14 {
        let mut one = sent(app.address, request).await;
        // It has its place: connections are served by several threads, in no order.
        read_until(&mut one, "ok\n").await;
        held.push(one);
    }
    let mut beyond = sent(app.address, request).await;
    assert!(is_silent(&mut beyond, Duration::from_millis(300)).await, "it waits for a place");
    let refusal = read_to_end(&mut beyond).await;
    assert!(refusal.starts_with("HTTP/1.1 503 "), "{refusal}");
    for part in ["retry-after: 1", "connection: close", "connections_full", "x-request-id: "] {
        assert!(refusal.contains(part), "{part}: {refusal}");
    }
    let body = ask("cloud", &"long ".repeat(10_000));
    let mut beyond = sent(app.address, &post("/v1/chat/completions", "", &body)).await;
    assert!(read_to_end(&mut beyond).await.starts_with("HTTP/1.1 503 "), "with a body");
    let mut beyond = sent(app.address, &[h2::start(), h2::get(1, "/healthz")].concat()).await;
    let refusal = read_to_end(&mut beyond).await;
    assert!(refusal.contains("connections_full"), "HTTP/2: {refusal}");
    // Another client finds a place at once.
    let mut other = connect_from(OTHER, app.address).await;
    other.write_all(request).await.unwrap();
    assert!(read_until(&mut other, "ok\n").await.starts_with("HTTP/1.1 200"));
    // As does this one when it gives one back, also while it waits.
    drop(other);
    let mut waiting = sent(app.address, request).await;
    assert!(is_silent(&mut waiting, Duration::from_millis(100)).await);
    drop(held.pop());
    assert!(read_until(&mut waiting, "ok\n").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn requests_of_one_http2_connection_count_as_connections() {
    let upstream = MockUpstream::start().await;
    upstream.respond_with(Mode::HangBeforeHeaders);
    let app = TestApp::start_with(&cloud_model("cloud", 1.0, &upstream), |config| {
        config.server.max_connections = 4;
        config.server.client_share = 1.0;
    })
    .await;
    let mut stream = sent(app.address, &h2::start()).await;
    let body = ask("cloud", "hi").to_string();
    for number in 0..5 {
        let request = h2::post(2 * number + 1, "/v1/chat/completions", &body);
        stream.write_all(&request).await.unwrap();
    }
    read_until(&mut stream, "connections_full").await;
    upstream.until_open(4).await;
    drop(stream);
    upstream.until_open(0).await;
}

#[tokio::test]
async fn bodies_under_way_are_bounded_and_half_sent_ones_give_way() {
    const MIB: usize = 1 << 20;
    let upstream = MockUpstream::start().await;
    let app = TestApp::start_with(&cloud_model("cloud", 1.0, &upstream), |config| {
        config.server.max_body_bytes = MIB;
        config.server.body_memory_bytes = 4 * MIB as u64;
        config.server.client_share = 0.5;
        config.server.body_timeout_ms = 5_000;
    })
    .await;
    let half = |key: &str| {
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             authorization: Bearer {key}\r\ncontent-length: {MIB}\r\n\r\n{{\"model\":\"cloud\",\"x\":\""
        );
        [head.into_bytes(), vec![b'a'; MIB - 1000]].concat()
    };
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(sent(app.address, &half("greedy")).await);
    }
    // What the sockets hold has not arrived yet.
    let code = async |key: &str| asked(&app, key).await.1;
    eventually(|| async {
        let request = client().post(app.url("/v1/chat/completions")).bearer_auth("greedy");
        let body = ask("cloud", &"a".repeat(MIB / 2));
        let reply = request.json(&body).send().await.unwrap();
        (reply.status() == 429).then_some(())
    })
    .await;
    assert_eq!(code("modest").await, "");
    // The half-sent bodies time out, and their memory is free.
    for mut stream in held {
        assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 408 "));
    }
    let request = client().post(app.url("/v1/chat/completions")).bearer_auth("greedy");
    let reply = request.json(&ask("cloud", &"a".repeat(MIB / 2))).send().await.unwrap();
    assert_eq!(reply.status(), 200);
}

#[tokio::test]
async fn a_body_counts_until_its_request_ends_and_as_decoded() {
    use std::io::Write;
    let upstream = MockUpstream::start().await;
    upstream.respond_with(Mode::HangBeforeHeaders);
    let app = TestApp::start_with(&cloud_model("cloud", 1.0, &upstream), |config| {
        config.server.max_body_bytes = 1 << 20;
        config.server.body_memory_bytes = 3 << 20;
        config.server.client_share = 1.0;
    })
    .await;
    let body = ask("cloud", &"a".repeat(900_000)).to_string();
    let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    gzip.write_all(body.as_bytes()).unwrap();
    let packed = gzip.finish().unwrap();
    assert!(packed.len() < 100_000);
    let length = packed.len();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-encoding: gzip\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    let request = [head.as_bytes(), &packed].concat();
    let mut hanging = Vec::new();
    for count in 1..=3 {
        hanging.push(sent(app.address, &request).await);
        app.until_in_flight("cloud", count).await;
    }
    let refused = app.chat(&ask("cloud", &"a".repeat(900_000))).await;
    assert_eq!(refused.error(), (503, "api_error", "bodies_full"), "{}", refused.text);
    assert_eq!(refused.header("retry-after"), "1");
    drop(hanging);
    app.until_in_flight("cloud", 0).await;
    upstream.respond_with(Mode::Answer);
    assert_eq!(app.chat(&ask("cloud", &"a".repeat(900_000))).await.status, 200);
}
