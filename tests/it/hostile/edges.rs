//! Odd requests: each gets one clear error in OpenAI's envelope.

use serde_json::{Value, json};

use crate::rig::app::{TestApp, ask, client, cloud_model, cloud_model_at};
use crate::rig::local_models::smol;
use crate::rig::mock_upstream::MockUpstream;
use crate::rig::raw_http::{h2, read_to_end, read_until, sent};

/// The status and the error of a raw reply.
async fn refusal(app: &TestApp, request: &str) -> (String, Value) {
    let mut stream = sent(app.address, request.as_bytes()).await;
    let reply = read_to_end(&mut stream).await;
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or((&reply, ""));
    let status = head.lines().next().unwrap_or_default().to_owned();
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    (status, body["error"].clone())
}

#[tokio::test]
async fn paths_that_are_no_text_are_refused_in_the_envelope() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&cloud_model("cloud", 1.0, &upstream)).await;
    for path in ["/v1/models/%ff", "/v1/requests/%ff", "/v1/requests/a%c3%28", "/models/%80x"] {
        let reply = app.get(path).await;
        assert_eq!(reply.error(), (400, "invalid_request_error", "invalid_value"), "{path}");
        assert_eq!(reply.json["error"]["param"], "path", "{path}");
    }
    let reply = app.post("/admin/models/%ff/load", &json!({})).await;
    assert_eq!(reply.error(), (400, "invalid_request_error", "invalid_value"));
    assert_eq!(app.get("/%ff").await.error(), (404, "invalid_request_error", "unknown_path"));
}

#[tokio::test]
async fn a_tunnel_is_refused_by_its_method() {
    let app = TestApp::start(&cloud_model_at("cloud", 1.0, "http://127.0.0.1:1/v1")).await;
    let request =
        "CONNECT localhost:443 HTTP/1.1\r\nhost: localhost:443\r\nconnection: close\r\n\r\n";
    let (status, error) = refusal(&app, request).await;
    assert!(status.starts_with("HTTP/1.1 405 "), "{status}");
    assert_eq!(error["message"], "method CONNECT is not allowed for this path");
}

/// A head is refused by the HTTP library, which knows no envelope.
#[tokio::test]
async fn a_head_that_cannot_be_read_is_refused_like_any_other_request() {
    let app = TestApp::start(&cloud_model_at("cloud", 1.0, "http://127.0.0.1:1/v1")).await;
    let well = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let many = "x-one-of-many: y\r\n".repeat(200);
    let heads = [
        ("GET  /healthz HTTP/1.1\r\n\r\n".to_owned(), 400, "malformed_request"),
        (
            "GET /healthz HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n".to_owned(),
            400,
            "malformed_request",
        ),
        ("GET /healthz HTTP/9.9\r\nhost: x\r\n\r\n".to_owned(), 400, "malformed_request"),
        ("\u{16}\u{3}\u{1} a TLS hello".to_owned(), 400, "malformed_request"),
        (format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{many}\r\n"), 431, "headers_too_large"),
        (
            format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}", "a".repeat(600_000)),
            431,
            "headers_too_large",
        ),
        (
            format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(65_600)),
            431,
            "headers_too_large",
        ),
    ];
    for (head, status, code) in heads {
        // First on its connection, and after a request that was answered.
        for before in ["", well, &well.repeat(3)] {
            let shown = head.get(..40).unwrap_or(&head).to_owned();
            let mut stream = sent(app.address, format!("{before}{head}").as_bytes()).await;
            let reply = read_to_end(&mut stream).await;
            let answered = reply.matches("HTTP/1.1 200 ").count();
            assert_eq!(answered, before.matches("GET").count(), "{shown:?}: {reply}");
            let last = reply.rfind("HTTP/1.1 ").map(|at| &reply[at..]).unwrap_or_default();
            assert!(last.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {last}");
            let (head, body) = last.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("x-wattgate-request-id: ") && head.contains("connection: close"));
            assert!(head.contains(&format!("content-length: {}", body.len())), "{last}");
            let error: Value = serde_json::from_str(body).unwrap();
            assert_eq!(error["error"]["code"], code, "{shown:?}: {last}");
            assert_eq!(error["error"]["type"], "invalid_request_error");
        }
    }
    let counted = "wattgate_http_requests_total{path=\"unknown\",status=\"431\"} 9";
    assert!(app.get("/metrics").await.text.contains(counted));
}

#[tokio::test]
async fn a_head_that_does_not_arrive_is_told_so_and_a_silent_connection_is_just_closed() {
    let hasty = |config: &mut wattgate::config::Config| config.server.idle_timeout_ms = 300;
    let app =
        TestApp::start_with(&cloud_model_at("cloud", 1.0, "http://127.0.0.1:1/v1"), hasty).await;
    let (status, error) = refusal(&app, "GET /healthz HTTP/1.1\r\nhost: x\r\nx-half").await;
    assert!(status.starts_with("HTTP/1.1 408 "), "{status}");
    assert_eq!(error["code"], "head_timeout");
    for silent in ["", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let reply = read_to_end(&mut sent(app.address, silent.as_bytes()).await).await;
        assert!(!reply.contains(" 408 "), "{reply}");
    }
}

#[tokio::test]
async fn a_large_head_over_http_2_is_refused_in_the_envelope() {
    let app = TestApp::start(&cloud_model_at("cloud", 1.0, "http://127.0.0.1:1/v1")).await;
    // Less than a frame; each field counts for 32 bytes more.
    let large = "a".repeat(14_000);
    let fields = [vec![("x-large", large.as_str())], vec![("a", "b"); 100]].concat();
    let head = h2::get_with(1, "/healthz", &fields);
    let mut stream = sent(app.address, &[h2::start(), head].concat()).await;
    let reply = read_until(&mut stream, "headers_too_large").await;
    assert!(reply.contains("invalid_request_error"), "{reply}");
}

#[tokio::test]
async fn the_host_is_named_once_and_well() {
    let app = TestApp::start(&cloud_model_at("cloud", 1.0, "http://127.0.0.1:1/v1")).await;
    for (hosts, status, code) in [
        ("", "HTTP/1.1 400 ", "invalid_host"),
        ("host: x\r\nhost: x\r\n", "HTTP/1.1 400 ", "invalid_host"),
        ("host: localhost\r\nhost: evil.example\r\n", "HTTP/1.1 400 ", "invalid_host"),
        ("host:\r\n", "HTTP/1.1 400 ", "invalid_host"),
        ("host: a b\r\n", "HTTP/1.1 400 ", "invalid_host"),
        ("host: evil.example\r\n", "HTTP/1.1 403 ", "host_not_allowed"),
    ] {
        for path in ["/v1/models", "/healthz", "/nothing"] {
            let request = format!("GET {path} HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
            let (line, error) = refusal(&app, &request).await;
            assert!(line.starts_with(status), "{hosts:?}: {line}");
            assert_eq!(error["code"], code, "{hosts:?}");
        }
    }
    let (line, _) = refusal(&app, "GET /v1/models HTTP/1.0\r\n\r\n").await;
    assert!(line.contains(" 200 "), "{line}");
}

#[tokio::test]
async fn a_body_that_is_no_object_is_refused_in_plain_words() {
    let app = TestApp::start(&cloud_model_at("cloud", 1.0, "http://127.0.0.1:1/v1")).await;
    for path in
        ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/route", "/v1/feedback"]
    {
        for body in ["[]", "7", "\"x\"", "null"] {
            let request = client().post(app.url(path)).header("content-type", "application/json");
            let reply: Value = request.body(body).send().await.unwrap().json().await.unwrap();
            assert_eq!(
                reply["error"]["message"], "the body must be a JSON object",
                "{path} {body}"
            );
        }
    }
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_refused_bias_is_named_by_its_own_id() {
    let app = TestApp::start(&smol("")).await;
    app.until_loaded("smol").await;
    for id in ["4294967295", "2147483648", "2147483647"] {
        let mut body = ask("smol", "hi");
        body["logit_bias"] = json!({id: 1});
        let reply = app.chat(&body).await;
        assert_eq!(reply.status, 400);
        assert!(reply.text.contains(&format!("names token {id};")), "{}", reply.text);
    }
}

#[tokio::test]
async fn a_remembered_request_holds_no_prompt() {
    let upstream = MockUpstream::start().await;
    let config = cloud_model("cloud", 1.0, &upstream) + "[traffic]\nprompts = \"full\"\n";
    let app = TestApp::start(&config).await;
    let reply = app.chat(&ask("cloud", &"Xanthic ".repeat(10_000))).await;
    let id = reply.receipt()["request_id"].as_str().unwrap().to_owned();
    let record = app.get(&format!("/v1/requests/{id}")).await;
    assert_eq!(record.status, 200);
    assert!(
        !record.text.contains("Xanthic") && record.text.len() < 10_000,
        "{}",
        record.text.len()
    );
    assert!(app.until_logged(1).await[0].prompt.is_some());
}
