//! Clients that close their end after the request: those that wait are answered, those that left
//! are not worked for.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use wattgate::traffic::Outcome;

use crate::rig::app::{TestApp, ask, ask_streaming, cloud_model, cloud_model_at};
use crate::rig::mock_upstream::{MockUpstream, Mode};
use crate::rig::raw_http::{post, read_to_end, sent};
use crate::rig::unruly_upstream::{Step, UnrulyUpstream, whole};

#[tokio::test]
async fn a_client_that_closes_its_end_gets_its_answer() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&cloud_model("cloud", 1.0, &upstream)).await;
    let path = "/v1/chat/completions";
    for (mode, waits) in
        [(Mode::Answer, false), (Mode::SlowChunks(Duration::from_millis(400)), true)]
    {
        upstream.respond_with(mode);
        for request in [
            b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
            b"GET /healthz HTTP/1.0\r\n\r\n".to_vec(),
            post(path, "", &ask("cloud", "hello")),
            post(path, "", &ask_streaming("cloud", "hello")),
        ] {
            let mut stream = sent(app.address, &request).await;
            stream.shutdown().await.unwrap();
            let reply = read_to_end(&mut stream).await;
            // Only a client that waits is tested.
            let tested = reply.starts_with("HTTP/1.1 100 ");
            assert!(!tested || waits, "{reply}");
            assert!(reply.contains(" 200 OK\r\n"), "{reply}");
            let end = if reply.contains("event-stream") { "[DONE]" } else { "hello\"" };
            assert!(reply.contains(end) || reply.ends_with("ok\n"), "{reply}");
        }
    }
}

#[tokio::test]
async fn a_client_that_has_left_is_not_worked_for() {
    for streams in [false, true] {
        for steps in [vec![Step::Silence], vec![Step::head(), Step::text("Hi"), Step::Silence]] {
            let upstream = UnrulyUpstream::start(vec![steps]).await;
            let app = TestApp::start(&cloud_model_at("cloud", 1.0, &upstream.base_url())).await;
            let body = if streams { ask_streaming("cloud", "hi") } else { ask("cloud", "hi") };
            let stream = sent(app.address, &post("/v1/chat/completions", "", &body)).await;
            app.until_in_flight("cloud", 1).await;
            drop(stream);
            let left = Instant::now();
            app.until_in_flight("cloud", 0).await;
            assert!(left.elapsed() < Duration::from_secs(5), "{:?}", left.elapsed());
            assert_eq!(app.until_logged(1).await[0].outcome, Outcome::Cancelled);
        }
    }
}

#[tokio::test]
async fn a_client_that_sends_half_a_body_and_closes_its_end_is_refused() {
    let upstream = UnrulyUpstream::start(vec![vec![whole(200, "", "{}")]]).await;
    let app = TestApp::start(&cloud_model_at("cloud", 1.0, &upstream.base_url())).await;
    let request = post("/v1/chat/completions", "", &ask("cloud", "hi"));
    let mut stream = sent(app.address, &request[..request.len() - 5]).await;
    stream.shutdown().await.unwrap();
    let reply = read_to_end(&mut stream).await;
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 400 "), "{reply}");
    assert!(upstream.requests().is_empty());
    app.until_in_flight("cloud", 0).await;
}
