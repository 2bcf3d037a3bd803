//! When the chosen model fails before its first output, the next candidate of the same decision
//! answers.

use serde_json::json;

use crate::rig::app::{TestApp, ask, ask_streaming, cloud_model};
use crate::rig::mock_upstream::{MockUpstream, Mode};

/// A cheap model that is chosen first and an expensive one as fallback.
async fn two_models() -> (TestApp, MockUpstream, MockUpstream) {
    let (cheap, dear) = (MockUpstream::start().await, MockUpstream::start().await);
    let dear_config = cloud_model("dear", 3.0, &dear).replace("\"small\"", "\"frontier\"");
    let config = cloud_model("cheap", 3.0, &cheap) + &dear_config;
    (TestApp::start(&config).await, cheap, dear)
}

#[tokio::test]
async fn each_failure_before_the_first_byte_moves_to_the_next_candidate() {
    let modes = [
        ("credentials", Mode::Status(401)),
        ("rate_limited", Mode::RateLimited("7")),
        ("upstream_status", Mode::Status(500)),
        ("protocol", Mode::Verbatim(200, "application/json", "\u{1}not json")),
        ("protocol", Mode::Verbatim(200, "text/html", "<html>Welcome!</html>")),
    ];
    for (word, mode) in modes {
        for streams in [false, true] {
            let (app, cheap, dear) = two_models().await;
            cheap.respond_with(mode.clone());
            let receipt = if streams {
                app.stream(&ask_streaming("auto", "hello")).await.receipt().clone()
            } else {
                let reply = app.chat(&ask("auto", "hello")).await;
                assert_eq!(reply.status, 200, "{mode:?}: {}", reply.text);
                reply.receipt().clone()
            };
            let attempts = &receipt["attempts"];
            assert_eq!(attempts[0]["model"], "cheap");
            assert_eq!(
                (&attempts[0]["outcome"], &attempts[0]["error"]),
                (&json!("failed"), &json!(word)),
                "{mode:?}"
            );
            assert_eq!(
                (&attempts[1]["model"], &attempts[1]["outcome"]),
                (&json!("dear"), &json!("answered"))
            );
            assert!(receipt["reason"].as_str().unwrap().contains("cheap failed"), "{receipt}");
            assert_eq!(receipt["model"], "dear");
            assert_eq!(dear.requests().len(), 1);
        }
    }
}

#[tokio::test]
async fn a_model_requested_by_name_has_no_fallback() {
    let cases = [
        (Mode::Status(401), 502, "credentials"),
        (Mode::RateLimited("7"), 429, "rate_limited"),
        (Mode::Status(500), 502, "upstream_status"),
        (Mode::Verbatim(200, "text/html", "<html>Welcome!</html>"), 502, "protocol"),
    ];
    for (mode, status, code) in cases {
        let (app, cheap, dear) = two_models().await;
        cheap.respond_with(mode.clone());
        let reply = app.chat(&ask("cheap", "hello")).await;
        assert_eq!((reply.status, reply.error().2), (status, code), "{mode:?}: {}", reply.text);
        if status == 429 {
            assert_eq!(reply.header("retry-after"), "7");
        }
        assert_eq!(dear.requests().len(), 0);
    }
}

#[tokio::test]
async fn a_client_error_is_not_retried_elsewhere() {
    let (app, cheap, dear) = two_models().await;
    cheap.respond_with(Mode::Status(400));
    let reply = app.chat(&ask("auto", "hello")).await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    assert_eq!((cheap.requests().len(), dear.requests().len()), (1, 0));
}

#[tokio::test]
async fn an_unreachable_upstream_falls_back_and_is_named_in_the_receipt() {
    let dear = MockUpstream::start().await;
    // Nothing listens on port 1 of loopback.
    let config = format!(
        "[models.gone]\nability = 3.0\n[models.gone.openai]\nbase_url = \"http://127.0.0.1:1/v1\"\n\
         model = \"x\"\nenergy_class = \"nano\"\n{}",
        cloud_model("dear", 3.0, &dear)
    );
    let app = TestApp::start(&config).await;
    let reply = app.chat(&ask("auto", "hello")).await;
    assert_eq!((reply.status, &reply.receipt()["model"]), (200, &json!("dear")), "{}", reply.text);
    assert_eq!(reply.receipt()["attempts"][0]["error"], "unavailable");
    let named = app.chat(&ask("gone", "hello")).await;
    assert_eq!(named.error(), (503, "api_error", "unavailable"));
}

#[tokio::test]
async fn a_missing_key_is_reported_and_other_models_answer() {
    let upstream = MockUpstream::start().await;
    let keyless = cloud_model("keyless", 3.0, &upstream)
        + "api_key_env = \"WATTGATE_TEST_KEY_THAT_NOBODY_SETS\"\n";
    let app = TestApp::start(&(keyless + &cloud_model("open", 1.0, &upstream))).await;
    let reply = app.chat(&ask("auto", "hello")).await;
    assert_eq!(reply.receipt()["model"], "open");
    assert_eq!(reply.receipt()["candidates"][0]["excluded"], "no_api_key");
    let named = app.chat(&ask("keyless", "hello")).await;
    assert_eq!(named.status, 503);
    assert!(named.text.contains("API key is not set"), "{}", named.text);
}
