//! The edge around the API: ids and counts of every reply, receipts of failed requests, limits, and
//! the operator's own address.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::app::{TestApp, ask, client, cloud_model};
use crate::rig::mock_upstream::{MockUpstream, Mode};

fn config(upstream: &MockUpstream) -> String {
    cloud_model("cloud", 1.0, upstream)
}

#[tokio::test]
async fn refused_requests_have_an_id_and_are_counted() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&config(&upstream)).await;
    let wrong = app.post("/v1/chat/completions", &json!({"model": "auto"})).await;
    let unknown = app.get("/v1/nothing").await;
    let models = app.get("/v1/models").await;
    assert_eq!([wrong.status, unknown.status, models.status], [400, 404, 200]);
    let ids = [&wrong, &unknown, &models].map(|reply| reply.header("x-wattgate-request-id"));
    assert!(ids.iter().all(|id| id.len() == 36) && ids[0] != ids[1], "{ids:?}");
    let metrics = app.get("/metrics").await.text;
    for series in [
        r#"path="/v1/chat/completions",status="400"} 1"#,
        r#"path="unknown",status="404"} 1"#,
        r#"path="/v1/models",status="200"} 1"#,
    ] {
        assert!(metrics.contains(&format!("wattgate_http_requests_total{{{series}")), "{metrics}");
    }
}

#[tokio::test]
async fn a_failed_request_carries_its_receipt() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&config(&upstream)).await;
    for mode in [Mode::Status(500), Mode::CutMidAnswer] {
        upstream.respond_with(mode);
        let reply = app.chat(&ask("cloud", "hi there you")).await;
        assert!(reply.json["error"]["code"].is_string(), "{}", reply.text);
        let receipt = reply.receipt();
        assert_eq!(receipt["request_id"], reply.header("x-wattgate-request-id"));
        assert_eq!(receipt["attempts"][0]["outcome"], "failed", "{}", reply.text);
    }
}

#[tokio::test]
async fn admin_and_metrics_move_to_their_own_address() {
    let upstream = MockUpstream::start().await;
    let own = |config: &mut wattgate::config::Config| {
        config.server.admin_listen = Some("127.0.0.1:0".parse().unwrap());
    };
    let app = TestApp::start_with(&config(&upstream), own).await;
    assert_eq!(app.get("/metrics").await.status, 404);
    assert_eq!(app.post("/admin/router/reload", &json!({})).await.status, 404);
    let operator = app.operator_address.unwrap();
    let at = async |path: &str| {
        let url = format!("http://{operator}{path}");
        client().get(url).send().await.unwrap().status().as_u16()
    };
    let statuses = [at("/metrics").await, at("/readyz").await, at("/v1/models").await];
    assert_eq!(statuses, [200, 200, 404]);
    assert_eq!(app.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let upstream = MockUpstream::start().await;
    let hasty = |config: &mut wattgate::config::Config| config.server.body_timeout_ms = 50;
    let app = TestApp::start_with(&config(&upstream), hasty).await;
    let mut socket = TcpStream::connect(app.address).await.unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut reply = vec![0; 64 << 10];
    let length = socket.read(&mut reply).await.unwrap();
    let reply = String::from_utf8_lossy(&reply[..length]);
    assert!(reply.starts_with("HTTP/1.1 408 ") && reply.contains("body_timeout"), "{reply}");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let upstream = MockUpstream::start().await;
    let one = |config: &mut wattgate::config::Config| config.server.max_connections = 1;
    let app = TestApp::start_with(&config(&upstream), one).await;
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut first = TcpStream::connect(app.address).await.unwrap();
    first.write_all(request).await.unwrap();
    assert!(first.read(&mut [0; 1024]).await.unwrap() > 0);
    let mut second = TcpStream::connect(app.address).await.unwrap();
    second.write_all(request).await.unwrap();
    let mut answer = [0; 1024];
    let early = tokio::time::timeout(Duration::from_millis(100), second.read(&mut answer)).await;
    assert!(early.is_err(), "the second connection was served beside the first");
    drop(first);
    assert!(second.read(&mut answer).await.unwrap() > 0);
}
