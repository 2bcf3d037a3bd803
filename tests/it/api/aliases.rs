//! Names that clients have wired in, for models and policies, and classes of requests.

use crate::rig::app::{Reply, TestApp, ask, cloud_model};
use crate::rig::mock_upstream::MockUpstream;

#[tokio::test]
async fn other_names_reach_models_and_policies() {
    let upstream = MockUpstream::start().await;
    let config = format!(
        "[aliases]\n\"gpt-4o\" = \"big\"\n\"claude-*\" = \"auto/cheap\"\n[policies.cheap]\nobjective = \"dollars\"\n{}{}",
        cloud_model("big", 3.0, &upstream).replace("_tokens = 1.0", "_tokens = 1000.0"),
        cloud_model("small", 1.0, &upstream),
    );
    let app = TestApp::start(&config).await;
    let named = app.chat(&ask("gpt-4o", "hi")).await;
    assert_eq!((named.status, &named.receipt()["model"]), (200, &"big".into()), "{}", named.text);
    let routed = app.chat(&ask("claude-sonnet-4-5", "hi")).await;
    assert_eq!(routed.receipt()["policy"], "cheap", "{}", routed.text);
    assert_eq!(routed.receipt()["model"], "small");
    assert_eq!(app.chat(&ask("gpt-5", "hi")).await.error().2, "model_not_found");
    let models = app.get("/v1/models").await.json;
    let ids: Vec<_> = models["data"].as_array().unwrap().iter().map(|card| &card["id"]).collect();
    assert!(ids.contains(&&"gpt-4o".into()) && !ids.contains(&&"claude-*".into()), "{ids:?}");
    assert_eq!(app.get("/v1/models/gpt-4o").await.status, 200);
}

#[tokio::test]
async fn what_an_agents_request_is_for_chooses_its_policy() {
    let upstream = MockUpstream::start().await;
    let config = format!(
        "[request_classes]\ncompaction = \"auto/cheap\"\n[policies.cheap]\nobjective = \"dollars\"\n{}",
        cloud_model("big", 3.0, &upstream),
    );
    let app = TestApp::start(&config).await;
    let policy = async |model: &str, class: (&str, &str)| {
        let request = app.request("/v1/chat/completions").header(class.0, class.1);
        let reply = Reply::of(request.json(&ask(model, "hi")).send().await.unwrap()).await;
        reply.receipt()["policy"].as_str().unwrap().to_owned()
    };
    for name in ["x-claude-code-request-class", "x-wattgate-request-class"] {
        assert_eq!(policy("auto", (name, "compaction")).await, "cheap");
        assert_eq!(policy("auto", (name, "main")).await, "default");
        assert_eq!(policy("big", (name, "compaction")).await, "default", "named itself");
    }
}
