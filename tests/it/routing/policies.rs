//! Policies over HTTP: budgets, trade-offs, task classes, overrides, exploration.

use serde_json::{Value, json};

use crate::rig::app::{Reply, TestApp, ask, cloud_model};
use crate::rig::mock_upstream::MockUpstream;

/// A small model and a better one that takes ten times the energy, with the policies of `config`.
async fn pair(config: &str) -> (TestApp, MockUpstream) {
    let upstream = MockUpstream::start().await;
    let large = cloud_model("large", 6.0, &upstream).replace("\"small\"", "\"frontier\"");
    let config = format!("{config}\n{}{large}", cloud_model("small", 1.0, &upstream));
    (TestApp::start(&config).await, upstream)
}

async fn with(app: &TestApp, headers: &[(&str, &str)], body: &Value) -> Reply {
    let mut request = app.request("/v1/chat/completions").json(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Reply::of(request.send().await.unwrap()).await
}

fn with_wishes(wishes: Value) -> Value {
    let mut body = ask("auto", "hello");
    body["wattgate"] = wishes;
    body
}

#[tokio::test]
async fn the_best_model_within_the_budget_answers() {
    let (app, upstream) = pair("[policies.default]\nobjective = \"quality\"").await;
    let within = app.chat(&with_wishes(json!({"max_joules": 300}))).await;
    assert_eq!(within.receipt()["model"], "small", "{}", within.text);
    assert_eq!(within.receipt()["candidates"][1]["excluded"], "over_joules");
    assert!(!upstream.requests()[0].raw.contains("wattgate"), "the wish is ours alone");
    assert_eq!(app.chat(&ask("auto", "hello")).await.receipt()["model"], "large");
    let none = app.chat(&with_wishes(json!({"max_joules": 0.001}))).await;
    assert_eq!(none.error(), (400, "invalid_request_error", "over_budget"), "{}", none.text);
    assert!(none.text.contains("more energy than the budget"), "{}", none.text);
    let poor = with(&app, &[("x-wattgate-max-dollars", "0")], &ask("auto", "hello")).await;
    assert_eq!(poor.error().2, "over_budget");
}

#[tokio::test]
async fn lambda_sets_the_trade_off_between_quality_and_cost() {
    let trade = |lambda: &str| {
        format!(
            "[policies.default]\nobjective = \"tradeoff\"\nfloor = 0.0\nlambda_per_joule = {lambda}"
        )
    };
    for (lambda, model) in [("0.001", "small"), ("0.0000001", "large")] {
        let (app, _upstream) = pair(&trade(lambda)).await;
        let reply = app.chat(&ask("auto", "hello")).await;
        assert_eq!(reply.receipt()["model"], model, "{}", reply.text);
        let reason = reply.header("x-wattgate-reason");
        assert!(reason.contains("p - lambda cost") && reason.contains("next is"), "{reason}");
    }
}

#[tokio::test]
async fn a_task_class_can_override_the_policy() {
    let config = "[policies.default]\nfloor = 0.0\n[policies.default.classes.code]\nmodel = \"large\"\n\
                  [policies.default.classes.math]\nobjective = \"quality\"";
    let (app, _upstream) = pair(config).await;
    for (question, task, model) in [
        ("Why is the sky blue?", "chat", "small"),
        ("Write a Python function that adds two numbers.", "code", "large"),
        ("Solve x^2 = 4", "math", "large"),
    ] {
        let reply = app.chat(&ask("auto", question)).await;
        assert_eq!(reply.receipt()["model"], model, "{}", reply.text);
        let route = app.post("/v1/route", &ask("auto", question)).await.json;
        assert_eq!((&route["task"], &route["model"]), (&json!(task), &json!(model)));
    }
    let named = app.chat(&ask("small", "Write a Python function that adds.")).await;
    assert_eq!(named.receipt()["model"], "small", "the client's own choice goes first");
    let metrics = app.get("/metrics").await.text;
    assert!(metrics.contains("reason=\"pinned\",task=\"code\""), "{metrics}");
}

#[tokio::test]
async fn a_request_overrides_what_its_policy_allows() {
    let config = "[policies.default]\nfloor = 0.5\n[policies.fixed]\noverrides = [\"max_dollars\"]\nmax_dollars = 0.5";
    let (app, upstream) = pair(config).await;
    let chosen = |reply: &Reply| reply.receipt()["model"].as_str().unwrap_or_default().to_owned();
    assert_eq!(chosen(&app.chat(&ask("auto", "hello")).await), "small");
    let high = with(&app, &[("x-wattgate-floor", "0.97")], &ask("auto", "hello")).await;
    assert_eq!(chosen(&high), "large");
    let best = app.chat(&with_wishes(json!({"objective": "quality"}))).await;
    assert_eq!(chosen(&best), "large");
    // RouteLLM's syntax for a floor.
    assert_eq!(chosen(&app.chat(&ask("router-mf-0.03", "hello")).await), "large");
    assert_eq!(chosen(&app.chat(&ask("router-mf-0.9", "hello")).await), "small");
    let before = upstream.requests().len();
    for (headers, status, code, says) in [
        (
            ("x-wattgate-floor", "0.1"),
            403,
            "override_not_allowed",
            "it may set max_dollars, local_only",
        ),
        (("x-wattgate-max-dollars", "2"), 403, "override_not_allowed", "at most $0.5"),
        (("x-wattgate-objective", "speed"), 400, "invalid_value", "joules, dollars, latency"),
    ] {
        let refused = with(&app, &[headers], &ask("auto/fixed", "hello")).await;
        assert_eq!((refused.status, refused.error().2), (status, code), "{}", refused.text);
        assert!(refused.text.contains(says), "{}", refused.text);
    }
    let typo = app.chat(&with_wishes(json!({"flor": 0.9}))).await;
    assert_eq!((typo.status, &typo.json["error"]["param"]), (400, &json!("wattgate.flor")));
    assert_eq!(upstream.requests().len(), before, "what is refused is not run");
}

#[tokio::test]
async fn exploration_is_logged_with_its_propensity() {
    let (app, _upstream) = pair("[policies.default]\nfloor = 0.0\nexplore = 0.5").await;
    let asks = (0..64).map(|turn| {
        let app = &app;
        async move { app.chat(&ask("auto", &format!("hello {turn}"))).await }
    });
    futures::future::join_all(asks).await;
    let records = app.stop().await;
    let mut explored = 0;
    for record in &records {
        let model = record.receipt.model.as_deref().unwrap();
        let expected = if model == "small" { 0.75 } else { 0.25 };
        assert!((record.propensity - expected).abs() < 1e-9, "{model} {}", record.propensity);
        explored += u32::from(record.receipt.reason.starts_with("explored"));
        assert!(record.rule.explore.is_some());
    }
    // 64 draws with probability 1/4: none or all has a probability below 1e-7.
    assert!((1..64).contains(&explored), "{explored}");
}

#[tokio::test]
async fn route_explains_every_field_of_a_decision() {
    let (app, upstream) = pair("[policies.default]\nfloor = 0.5").await;
    let request = app.request("/v1/route").header("x-wattgate-max-joules", "300");
    let reply = Reply::of(request.json(&ask("auto", "hello")).send().await.unwrap()).await;
    let route = &reply.json;
    assert_eq!((&route["rule"]["max_joules"], &route["propensity"]), (&json!(300.0), &json!(1.0)));
    assert_eq!(route["candidates"][1]["excluded"], "over_joules");
    let small = &route["candidates"][0];
    assert!(small["output_tokens"].as_u64() > Some(0) && small["dollars"].as_f64() > Some(0.0));
    assert_eq!(upstream.requests().len(), 0);
}
