//! Clients that send slowly, read nothing or send giant things, beside one that behaves.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::rig::app::{
    TestApp, ask, ask_streaming, client, cloud_model, cloud_model_at, eventually,
};
use crate::rig::fake_engine::FakeModel;
use crate::rig::local_models::local_model;
use crate::rig::mock_upstream::MockUpstream;
use crate::rig::raw_http::{h2, post, read_to_end, read_until, sent, until_closed};
use crate::rig::unruly_upstream::{Step, UnrulyUpstream};

/// How long a client that behaves may wait beside others, on a loaded machine.
const PROMPTLY: Duration = Duration::from_secs(20);

/// A gateway with one cloud model, `cloud`, and short limits.
async fn gateway(upstream: &MockUpstream) -> TestApp {
    TestApp::start_with(&cloud_model("cloud", 1.0, upstream), |config| {
        config.server.idle_timeout_ms = 500;
        config.server.body_timeout_ms = 500;
        config.server.write_timeout_ms = 500;
    })
    .await
}

async fn is_well(app: &TestApp) {
    let began = Instant::now();
    assert_eq!(app.get("/healthz").await.status, 200);
    assert_eq!(app.chat(&ask("cloud", "hi")).await.status, 200);
    assert!(began.elapsed() < PROMPTLY, "{:?}", began.elapsed());
}

#[tokio::test]
async fn slow_clients_of_every_kind_delay_no_other_and_are_closed() {
    let upstream = MockUpstream::start().await;
    let app = gateway(&upstream).await;
    let head =
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let half_body = format!("{head}content-length: 100\r\n\r\n{{\"model\"");
    let half_chunk = format!("{head}transfer-encoding: chunked\r\n\r\nff\r\n{{\"model\"");
    let no_settings = h2::PREFACE;
    let half_frame = [h2::PREFACE, &h2::frame(4, 0, 0, &[])[..5]].concat();
    let post = h2::post(1, "/v1/chat/completions", "");
    // The stream's end is missing.
    let open_stream = [h2::start(), post[..post.len() - 9].to_vec()].concat();
    let kinds: [&[u8]; 9] = [
        b"",
        b"GET /hea",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-half",
        half_body.as_bytes(),
        half_chunk.as_bytes(),
        b"PRI * HT",
        no_settings,
        &half_frame,
        &open_stream,
    ];
    let mut slow = Vec::new();
    for kind in kinds {
        for _ in 0..30 {
            slow.push(sent(app.address, kind).await);
        }
    }
    is_well(&app).await;
    for stream in slow {
        until_closed(stream).await;
    }
    is_well(&app).await;
}

#[tokio::test]
async fn a_head_that_drips_and_a_connection_that_only_pings_are_closed() {
    let upstream = MockUpstream::start().await;
    let app = gateway(&upstream).await;
    let drip = async {
        let mut stream = sent(app.address, b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-drip: ").await;
        while stream.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let ping = async {
        let mut stream = sent(app.address, &h2::start()).await;
        let ping = h2::frame(h2::PING, 0, 0, &[0; 8]);
        while stream.write_all(&ping).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let both = async { tokio::join!(drip, ping) };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("both are closed");
}

#[tokio::test]
async fn finished_answers_that_are_not_read_hold_no_place() {
    let fake = FakeModel::new("unread", "load_ms = 1\nstep_ms = 1");
    let config = local_model("smol", fake.path(), "slots = 2\nqueue = 2");
    let app = TestApp::start_fake(&config).await;
    app.until_loaded("smol").await;
    let mut stream = sent(app.address, &h2::start_without_window()).await;
    let mut body = ask_streaming("smol", "hi");
    body["max_tokens"] = json!(1);
    // Ten times as many as the model has places.
    for number in 0..40 {
        let request = h2::post(2 * number + 1, "/v1/chat/completions", &body.to_string());
        stream.write_all(&request).await.unwrap();
        let begun = format!(r#"{{path="/v1/chat/completions",status="200"}} {}"#, number + 1);
        eventually(|| async { app.get("/metrics").await.text.contains(&begun).then_some(()) })
            .await;
        app.until_in_flight("smol", 0).await;
    }
    let reply = app.chat(&ask("smol", "hi")).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    drop(stream);
}

#[tokio::test]
async fn clients_that_never_read_leave_places_for_one_that_does() {
    let Step::Say(event) = Step::text(&"word ".repeat(800)) else { unreachable!() };
    let flood = vec![Step::head(), Step::Say(event.repeat(6_000))];
    let (flood, upstream) = (UnrulyUpstream::start(vec![flood]).await, MockUpstream::start().await);
    let config = cloud_model("cloud", 1.0, &upstream)
        + &cloud_model_at("flood", 1.0, &flood.base_url())
        + "max_in_flight = 8\n";
    let app = TestApp::start_with(&config, |config| config.server.write_timeout_ms = 500).await;
    let mut unread = Vec::new();
    for _ in 0..7 {
        let request = post("/v1/chat/completions", "", &ask_streaming("flood", "hi"));
        unread.push(sent(app.address, &request).await);
    }
    is_well(&app).await;
    eventually(|| async { (app.records().len() >= 8).then_some(()) }).await;
    app.until_in_flight("flood", 0).await;
    is_well(&app).await;
    drop(unread);
}

#[tokio::test]
async fn giant_things_are_refused_and_only_there() {
    let upstream = MockUpstream::start().await;
    let app = gateway(&upstream).await;
    let giant = "a".repeat(300_000);
    let raw = async |text: String| {
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        // The gateway may have closed it before the end.
        let _ = stream.write_all(text.as_bytes()).await;
        read_to_end(&mut stream).await
    };
    let reply = raw(format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-giant: {giant}\r\n\r\n")).await;
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 431"), "{reply}");
    let reply = raw(format!("GET /{giant} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 4"), "{reply}");
    let many = "x-a: b\r\n".repeat(500);
    let reply = raw(format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{many}\r\n")).await;
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 431"), "{reply}");
    for body in [
        json!({"model": giant, "messages": [{"role": "user", "content": "x"}]}),
        json!({"model": "cloud", "messages": [{"role": "user", "content": "x"}], "wattgate": {giant.as_str(): 1}}),
        json!({"model": "cloud", "messages": [{"role": "user", "content": "x"}], "wattgate": {"objective": giant}}),
        json!({"model": "cloud", "messages": [{"role": "user", "content": "x"}], "n": giant}),
        json!({"request_id": giant, "score": 1}),
        json!({"request_id": "r", "score": 1, "source": giant, giant.as_str(): 2}),
    ] {
        let path =
            if body["request_id"].is_null() { "/v1/chat/completions" } else { "/v1/feedback" };
        let reply = app.post(path, &body).await;
        assert!(reply.status >= 400 && reply.json["error"]["message"].is_string(), "{path}");
        assert!(reply.text.len() < 8_000, "{} bytes", reply.text.len());
    }
    let id = "b".repeat(30_000);
    for path in [format!("/v1/models/{id}"), format!("/v1/requests/{id}"), format!("/{id}")] {
        let reply = app.get(&path).await;
        assert_eq!(reply.status, 404);
        assert!(reply.text.len() < 8_000, "{} bytes", reply.text.len());
    }
    for name in
        ["x-wattgate-floor", "x-wattgate-session", "content-encoding", "x-wattgate-priority"]
    {
        let request = client().post(app.url("/v1/chat/completions"));
        let request = request.header(name, "c".repeat(20_000)).json(&ask("cloud", "hi"));
        let reply = request.send().await.unwrap();
        assert!(reply.status().is_client_error(), "{name}");
        assert!(reply.text().await.unwrap().len() < 8_000, "{name}");
    }
    is_well(&app).await;
}

#[tokio::test]
async fn requests_in_a_row_on_one_connection_are_answered_in_order() {
    let upstream = MockUpstream::start().await;
    let app = gateway(&upstream).await;
    let one = post("/v1/chat/completions", "", &ask("cloud", "first"));
    let two = post("/v1/chat/completions", "connection: close\r\n", &ask("cloud", "second"));
    let mut stream = sent(app.address, &[one, two].concat()).await;
    let first = read_until(&mut stream, "you said: first").await;
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    assert!(read_to_end(&mut stream).await.contains("you said: second"));
}
