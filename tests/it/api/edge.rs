//! The edge around the API: ids and counts of every reply, receipts of failed requests, limits, and
//! the operator's own addresses.

use std::os::unix::fs::PermissionsExt;
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
async fn every_reply_has_an_id_that_openais_clients_read() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&config(&upstream)).await;
    let own = app.chat(&ask("cloud", "hi")).await;
    assert_eq!(own.header("x-request-id"), own.header("x-wattgate-request-id"));
    let request = app.request("/v1/chat/completions").header("x-request-id", "client-7");
    let reply = request.json(&ask("cloud", "hi")).send().await.unwrap();
    assert_eq!(reply.headers()["x-request-id"], "client-7");
    assert_eq!(reply.headers()["x-wattgate-request-id"].len(), 36);
}

#[tokio::test]
async fn paths_without_a_version_and_with_slashes_too_many_are_found() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&config(&upstream)).await;
    for path in [
        "/chat/completions",
        "/v1/chat/completions/",
        "//v1/chat/completions",
        "/v1//chat/completions",
    ] {
        assert_eq!(app.post(path, &ask("cloud", "hi")).await.status, 200, "{path}");
    }
    for path in ["/models", "/v1/models/", "/models/cloud", "/health"] {
        assert_eq!(app.get(path).await.status, 200, "{path}");
    }
    assert_eq!(app.get("/chat").await.error(), (404, "invalid_request_error", "unknown_path"));
    let metrics = app.get("/metrics").await.text;
    let counted = r#"wattgate_http_requests_total{path="/v1/chat/completions",status="200"} 4"#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn web_pages_may_only_do_what_their_origin_is_listed_for() {
    const PAGE: &str = "https://chat.example.com";
    let upstream = MockUpstream::start().await;
    let listed = |config: &mut wattgate::config::Config| {
        config.server.cors_origins = vec![PAGE.to_owned()];
    };
    for opened in [false, true] {
        let app = if opened {
            TestApp::start_with(&config(&upstream), listed).await
        } else {
            TestApp::start(&config(&upstream)).await
        };
        let url = app.url("/v1/chat/completions");
        let body = ask("cloud", "hi").to_string();
        let post = async |origin: &str, kind: &str| {
            let request = client().post(&url).header("origin", origin).body(body.clone());
            request.header("content-type", kind).send().await.unwrap()
        };
        let sent = upstream.requests().len();
        for kind in ["text/plain", "application/json", "application/x-www-form-urlencoded"] {
            for origin in ["https://evil.example", "null"] {
                let reply = post(origin, kind).await;
                assert_eq!(reply.status(), 403, "{origin} {kind}");
                assert!(!reply.headers().contains_key("access-control-allow-origin"));
            }
        }
        assert_eq!(upstream.requests().len(), sent, "a foreign page's request went upstream");
        let reply = post(PAGE, "application/json").await;
        assert_eq!(reply.status(), if opened { 200 } else { 403 });
        let preflight = client()
            .request(reqwest::Method::OPTIONS, &url)
            .header("origin", PAGE)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type")
            .send()
            .await
            .unwrap();
        let allowed = preflight.headers().get("access-control-allow-origin");
        assert_eq!(allowed.map(|origin| origin == PAGE), opened.then_some(true));
        if opened {
            assert_eq!(reply.headers()["access-control-allow-origin"], PAGE);
            let exposed = reply.headers()["access-control-expose-headers"].to_str().unwrap();
            assert!(exposed.contains("x-request-id") && exposed.contains("retry-after"));
            let headers = preflight.headers()["access-control-allow-headers"].to_str().unwrap();
            assert!(preflight.status().is_success() && headers.contains("authorization"));
        } else {
            assert_eq!(preflight.status(), 405);
        }
        let reload = async |name: &'static str, value: &str| {
            let request = client().post(app.url("/admin/router/reload")).header(name, value);
            request.send().await.unwrap().status().as_u16()
        };
        assert_eq!(reload("origin", "https://evil.example").await, 403);
        assert_eq!(reload("sec-fetch-site", "cross-site").await, 403);
        assert_eq!(reload("host", "evil.example").await, 403);
        assert_eq!(reload("content-type", "text/plain").await, 415);
        assert_eq!(reload("via", "1.1 proxy").await, 403);
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
async fn admin_moves_to_a_socket_that_only_the_user_may_open() {
    let upstream = MockUpstream::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    // Left by a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let at_socket = |config: &mut wattgate::config::Config| {
        config.admin.socket = Some(path.clone());
    };
    let app = TestApp::start_with(&config(&upstream), at_socket).await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert_eq!(app.post("/admin/router/reload", &json!({})).await.status, 404);
    assert_eq!(app.get("/metrics").await.status, 200, "scrapers stay on the network");
    let local = reqwest::Client::builder().unix_socket(path.clone()).build().unwrap();
    let reload = async |header: (&str, &str)| {
        let request = local.post("http://localhost/admin/router/reload").header(header.0, header.1);
        request.send().await.unwrap().status().as_u16()
    };
    // A trace of a proxy does not matter: who opens the socket is the operator.
    assert_eq!(reload(("via", "1.1 proxy")).await, 200);
    assert_eq!(reload(("origin", "https://evil.example")).await, 403);
    let at = async |path: &str| {
        let url = format!("http://localhost{path}");
        local.get(url).send().await.unwrap().status().as_u16()
    };
    assert_eq!(
        [at("/metrics").await, at("/readyz").await, at("/v1/models").await],
        [200, 200, 404]
    );
    // Another gateway does not take it away.
    let mut second = wattgate::config::parse(&config(&upstream), "t").unwrap();
    second.server.listen = "127.0.0.1:0".parse().unwrap();
    second.traffic.dir = dir.path().join("traffic");
    second.admin.socket = Some(path.clone());
    let refused = wattgate::app::App::build(second, "engine".into()).await.err().unwrap();
    assert!(refused.to_string().contains("another process listens on it"), "{refused}");
    app.stop().await;
    assert!(!path.exists(), "it is removed with its gateway");
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
