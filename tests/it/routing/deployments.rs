//! Deployments of a model: which may see a prompt, which is tried first, and what a failed one
//! costs.

use serde_json::{Value, json};

use crate::rig::app::{Reply, TestApp, ask, cloud_model};
use crate::rig::mock_upstream::{MockUpstream, Mode};

/// A model named `vllm` whose own server is `upstream`, with more keys.
fn vllm(upstream: &MockUpstream, more: &str) -> String {
    format!("{}{more}\n", cloud_model("vllm", 3.0, upstream))
}

/// A further deployment of the model `vllm`.
fn further(upstream: &MockUpstream, locality: &str) -> String {
    format!(
        "[[models.vllm.openai.deployments]]\nbase_url = \"{}\"\nlocality = \"{locality}\"\n",
        upstream.base_url()
    )
}

async fn local_only(app: &TestApp) -> Reply {
    let request = app.request("/v1/chat/completions").header("x-wattgate-local-only", "true");
    Reply::of(request.json(&ask("auto", "My secret is Xyzzy.")).send().await.unwrap()).await
}

#[tokio::test]
async fn only_a_server_that_is_declared_on_host_answers_a_local_only_conversation() {
    let upstream = MockUpstream::start().await;
    let undeclared = TestApp::start(&vllm(&upstream, "")).await;
    let reply = local_only(&undeclared).await;
    assert_eq!(reply.status, 503, "a server on loopback may be a proxy: {}", reply.text);
    assert!(upstream.requests().is_empty());

    let declared = TestApp::start(&vllm(&upstream, "locality = \"on_host\"")).await;
    let reply = local_only(&declared).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.receipt()["route"], "cloud", "the label of upstreams stays");
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn the_own_network_answers_a_local_only_conversation_by_its_key_only() {
    let upstream = MockUpstream::start().await;
    let config = vllm(&upstream, "locality = \"own_network\"");
    let app = TestApp::start(&config).await;
    assert_eq!(local_only(&app).await.status, 503);
    assert!(upstream.requests().is_empty());
    let app = TestApp::start(&format!("[routing]\nown_network_is_local = true\n{config}")).await;
    assert_eq!(local_only(&app).await.status, 200);
}

#[tokio::test]
async fn a_local_only_conversation_never_moves_on_to_a_third_partys_deployment() {
    let (near, far) = (MockUpstream::start().await, MockUpstream::start().await);
    let config = vllm(&far, "") + &further(&near, "on_host");
    let app = TestApp::start(&config).await;
    assert_eq!(local_only(&app).await.status, 200);
    assert_eq!((near.requests().len(), far.requests().len()), (1, 0));
    near.respond_with(Mode::Status(500));
    assert_eq!(local_only(&app).await.status, 502);
    assert_eq!((near.requests().len(), far.requests().len()), (2, 0));
}

#[tokio::test]
async fn a_models_card_lists_its_deployments() {
    let (near, far) = (MockUpstream::start().await, MockUpstream::start().await);
    let keyless = "api_key_env = \"WATTGATE_TEST_NO_SUCH_KEY\"\n";
    let config = vllm(&near, "locality = \"on_host\"") + &further(&far, "third_party") + keyless;
    let app = TestApp::start(&config).await;
    let card = app.get("/v1/models/vllm").await.json;
    let at = |upstream: &MockUpstream| {
        let url = upstream.base_url();
        url.trim_start_matches("http://").trim_end_matches("/v1").to_owned()
    };
    assert_eq!(
        card["deployments"],
        json!([
            {"name": at(&near), "locality": "on_host", "ready": true, "in_flight": 0},
            {"name": at(&far), "locality": "third_party", "ready": false, "unavailable": "no_api_key", "in_flight": 0},
        ]),
        "{card}"
    );
    assert_eq!(card["ready"], true);
    assert!(app.get("/v1/models/auto").await.json["deployments"].is_null());
}

#[tokio::test]
async fn a_failed_deployment_is_an_attempt_of_its_own_and_the_next_one_answers() {
    let (first, second) = (MockUpstream::start().await, MockUpstream::start().await);
    let other = MockUpstream::start().await;
    first.respond_with(Mode::Status(500));
    let config = vllm(&first, "") + &further(&second, "third_party");
    let app = TestApp::start(&(config + &cloud_model("other", 1.0, &other))).await;
    let reply = app.chat(&ask("vllm", "What is 2+2?")).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let attempts = reply.receipt()["attempts"].as_array().unwrap();
    let told: Vec<_> = attempts.iter().map(|one| (&one["model"], &one["outcome"])).collect();
    let (model, failed, answered) = (json!("vllm"), json!("failed"), json!("answered"));
    assert_eq!(told, [(&model, &failed), (&model, &answered)]);
    let host = |upstream: &MockUpstream| {
        upstream.base_url().trim_start_matches("http://").trim_end_matches("/v1").to_owned()
    };
    assert_eq!(attempts[0]["deployment"], host(&first));
    assert_eq!(attempts[1]["deployment"], host(&second));
    let record = serde_json::to_value(&app.until_logged(1).await[0]).unwrap();
    assert_eq!(record["attempts"][1]["deployment"], host(&second));
    let metrics = app.get("/metrics").await.text;
    for outcome in ["failed", "answered"] {
        let sample = format!(
            "wattgate_attempts_total{{model=\"vllm\",route=\"cloud\",outcome=\"{outcome}\"}} 1"
        );
        assert!(metrics.contains(&sample), "{metrics}");
    }

    // With every deployment failing, the next candidate answers.
    second.respond_with(Mode::Status(500));
    let reply = app.chat(&ask("auto", "What is 3+3?")).await;
    assert_eq!(reply.receipt()["model"], "other", "{}", reply.text);
    let models: Vec<&Value> =
        reply.receipt()["attempts"].as_array().unwrap().iter().map(|one| &one["model"]).collect();
    assert_eq!(models, ["vllm", "vllm", "other"]);
}

#[tokio::test]
async fn a_model_with_one_deployment_does_not_name_it() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&vllm(&upstream, "")).await;
    let reply = app.chat(&ask("vllm", "What is 2+2?")).await;
    assert!(reply.receipt()["attempts"][0].get("deployment").is_none());
}

#[tokio::test]
async fn the_deployment_with_the_fewest_requests_in_flight_is_tried_first() {
    let (first, second) = (MockUpstream::start().await, MockUpstream::start().await);
    let app = TestApp::start(&(vllm(&first, "") + &further(&second, "third_party"))).await;
    first.respond_with(Mode::HangBeforeHeaders);
    let (hanging, waiting) = (ask("vllm", "one"), ask("vllm", "two"));
    let send = app.send("/v1/chat/completions", &hanging);
    tokio::pin!(send);
    tokio::select! {
        _ = &mut send => panic!("the first deployment does not answer"),
        () = first.until_open(1) => {}
    }
    assert_eq!(app.chat(&waiting).await.status, 200);
    assert_eq!((first.requests().len(), second.requests().len()), (1, 1));
}
