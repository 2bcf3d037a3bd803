//! What web pages can make a browser ask for.

use reqwest::Method;
use serde_json::json;

use crate::rig::app::{TestApp, ask, client, cloud_model};
use crate::rig::mock_upstream::MockUpstream;

const EVIL: &str = "http://evil.example";

/// The status and code of a reply to a request with these headers.
async fn tried(
    app: &TestApp,
    method: Method,
    path: &str,
    headers: &[(&'static str, &str)],
) -> (u16, String) {
    let mut request = client().request(method.clone(), app.url(path));
    if method == Method::POST {
        request = request.body(ask("cloud", "hi").to_string());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let reply = request.send().await.unwrap();
    let status = reply.status().as_u16();
    let body: serde_json::Value = reply.json().await.unwrap_or_default();
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn what_costs_or_changes_something_comes_as_json() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&cloud_model("cloud", 1.0, &upstream)).await;
    let refused = (415, "unsupported_media_type".to_owned());
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/feedback",
        "/admin/router/reload",
    ] {
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "",
        ] {
            let reply = tried(&app, Method::POST, path, &[("content-type", kind)]).await;
            assert_eq!(reply, refused, "{path} {kind}");
        }
    }
    let own = app.url("");
    for mark in [("sec-fetch-mode", "no-cors"), ("origin", &*own)] {
        let reply = tried(&app, Method::POST, "/v1/chat/completions", &[mark]).await;
        assert_eq!(reply, refused, "a browser's without a type: {mark:?}");
    }
    assert!(upstream.requests().is_empty());
    let json = ("content-type", "application/json; charset=utf-8");
    for headers in [&[json][..], &[], &[json, ("origin", &*own)]] {
        assert_eq!(tried(&app, Method::POST, "/v1/chat/completions", headers).await.0, 200);
    }
}

#[tokio::test]
async fn a_page_whose_name_stands_for_this_machine_reads_and_does_nothing() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&cloud_model("cloud", 1.0, &upstream)).await;
    let host = format!("evil.example:{}", app.address.port());
    let json = ("content-type", "application/json");
    let refused = (403, "host_not_allowed".to_owned());
    for headers in [
        &[("host", &*host)][..],
        &[("host", &*host), ("sec-fetch-site", "same-origin")],
        &[("host", &*host), ("origin", EVIL)],
    ] {
        for path in ["/v1/models", "/metrics", "/v1/requests/x", "/readyz"] {
            assert_eq!(tried(&app, Method::GET, path, headers).await, refused, "{path}");
        }
        let headers = [headers, &[json]].concat();
        for path in ["/v1/chat/completions", "/v1/route", "/v1/feedback", "/admin/router/reload"] {
            assert_eq!(tried(&app, Method::POST, path, &headers).await, refused, "{path}");
        }
    }
    assert!(upstream.requests().is_empty());
    let listed = TestApp::start_with(&cloud_model("cloud", 1.0, &upstream), |config| {
        config.server.hosts = vec!["Evil.example".to_owned()];
    })
    .await;
    let host = format!("evil.example:{}", listed.address.port());
    let named = [("host", &*host), json];
    assert_eq!(tried(&listed, Method::GET, "/v1/models", &named).await.0, 200);
    assert_eq!(tried(&listed, Method::POST, "/v1/chat/completions", &named).await.0, 200);
    // A listed name is no operator's.
    assert_eq!(tried(&listed, Method::POST, "/admin/router/reload", &named).await.0, 403);
}

#[tokio::test]
async fn orders_through_a_proxy_need_the_key() {
    let upstream = MockUpstream::start().await;
    for remote in [false, true] {
        let app = TestApp::start_with(&cloud_model("cloud", 1.0, &upstream), |config| {
            config.admin.allow_remote = remote;
        })
        .await;
        let json = ("content-type", "application/json");
        assert_eq!(tried(&app, Method::POST, "/admin/router/reload", &[json]).await.0, 200);
        for mark in ["via", "forwarded", "x-forwarded-port", "cf-ray", "x-client-ip", "x_real_ip"] {
            let headers = [json, (mark, "x")];
            let reply = tried(&app, Method::POST, "/admin/router/reload", &headers).await;
            assert_eq!(reply, (403, "not_local".to_owned()), "{mark}");
        }
    }
    let operator = |base: &str| {
        let request = client().post(format!("{base}/admin/router/reload"));
        request.header("via", "1.1 proxy").json(&json!({}))
    };
    let keyed = TestApp::start_with(&cloud_model("cloud", 1.0, &upstream), |config| {
        // Any variable that is set everywhere.
        config.admin.key_env = Some("PATH".to_owned());
    })
    .await;
    let right = std::env::var("PATH").unwrap();
    for (key, status) in [(&*right, 200), ("wrong", 403)] {
        let reply = operator(&keyed.url("")).bearer_auth(key).send().await.unwrap();
        assert_eq!(reply.status(), status);
        assert!(!reply.text().await.unwrap().contains(key));
    }
    assert_eq!(operator(&keyed.url("")).send().await.unwrap().status(), 403);
}
