//! Conversations over HTTP: they stay on their model, remember failures, and stay local once marked
//! local-only.

use serde_json::{Value, json};
use wattgate::routing::SessionId;

use crate::rig::app::{Reply, TestApp, ask, client, cloud_model};
use crate::rig::local_models::fake_smol;
use crate::rig::mock_upstream::MockUpstream;

/// Two models, nearly alike; `a` is a little better, `b` takes more energy and money.
async fn twins(policy: &str) -> (TestApp, MockUpstream) {
    let upstream = MockUpstream::start().await;
    let b = cloud_model("b", 3.0, &upstream)
        .replace("\"small\"", "\"frontier\"")
        .replace("_tokens = 1.0", "_tokens = 1000.0");
    let config = format!("[policies.default]\n{policy}\n{}{b}", cloud_model("a", 3.1, &upstream));
    (TestApp::start(&config).await, upstream)
}

/// The conversation so far, with an answer and another question.
fn next_turn(body: &Value, question: &str) -> Value {
    let mut next = body.clone();
    let turns = next["messages"].as_array_mut().unwrap();
    turns.push(json!({"role": "assistant", "content": "As you wish."}));
    turns.push(json!({"role": "user", "content": question}));
    next["model"] = json!("auto");
    next
}

async fn with(app: &TestApp, header: (&str, &str), body: &Value) -> Reply {
    let request = app.request("/v1/chat/completions").header(header.0, header.1).json(body);
    Reply::of(request.send().await.unwrap()).await
}

fn session(reply: &Reply) -> SessionId {
    reply.header("x-wattgate-session").parse().unwrap()
}

#[tokio::test]
async fn a_conversation_stays_on_its_model_where_a_new_one_would_not_go() {
    let (app, _upstream) = twins("objective = \"quality\"").await;
    let first = ask("b", "Tell me a story about a lighthouse and its keeper, please.");
    let begun = app.chat(&first).await;
    let second =
        app.chat(&next_turn(&first, "Tell me a story about the lighthouse's cat now.")).await;
    assert_eq!(second.receipt()["model"], "b", "{}", second.text);
    let reason = second.receipt()["reason"].as_str().unwrap();
    assert!(reason.starts_with("the conversation stays on b: a would gain"), "{reason}");
    assert_eq!(session(&second), session(&begun));
    let fresh = app.chat(&ask("auto", "Tell me a story about the lighthouse's cat now.")).await;
    assert_eq!(fresh.receipt()["model"], "a");
    assert_ne!(session(&fresh), session(&begun));
    let metrics = app.get("/metrics").await.text;
    for line in [
        "wattgate_conversation_turns_total{policy=\"default\",turn=\"stays\"} 1",
        "wattgate_conversation_turns_total{policy=\"default\",turn=\"first\"} 2",
        "wattgate_conversations_remembered 2",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let logged = app.until_logged(3).await;
    let of = |reply: &Reply| {
        let found = logged.iter().find(|one| {
            *one.receipt.request_id == *reply.receipt()["request_id"].as_str().unwrap()
        });
        found.unwrap().clone()
    };
    assert_eq!(of(&begun).session, of(&second).session);
    assert_eq!(of(&second).rule.affinity.as_ref().map(|stay| &*stay.model), Some("b"));
}

#[tokio::test]
async fn a_tool_result_returns_to_the_model_that_called() {
    let (app, _upstream) = twins("floor = 0.1").await;
    let tools = json!([{"type": "function", "function": {"name": "clock", "parameters": {}}}]);
    let mut first = ask("b", "What time is it?");
    first["tools"] = tools;
    app.chat(&first).await;
    let mut result = first.clone();
    result["model"] = json!("auto");
    let call =
        json!({"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}});
    let turns = result["messages"].as_array_mut().unwrap();
    turns.push(json!({"role": "assistant", "content": null, "tool_calls": [call]}));
    turns.push(json!({"role": "tool", "tool_call_id": "c1", "content": "12:00"}));
    let back = app.chat(&result).await;
    assert_eq!(back.receipt()["model"], "b", "{}", back.text);
    assert!(back.header("x-wattgate-reason").starts_with("b called a tool"), "{:?}", back.headers);
    // If the model is excluded, another one answers, and the receipt says so.
    let turns = result["messages"].as_array_mut().unwrap();
    turns.push(json!({"role": "assistant", "content": null, "tool_calls": []}));
    turns.push(json!({"role": "tool", "tool_call_id": "c1", "content": "12:01"}));
    let instead = with(&app, ("x-wattgate-max-dollars", "0.01"), &result).await;
    assert_eq!(instead.receipt()["model"], "a", "{}", instead.text);
    let reason = instead.header("x-wattgate-reason");
    assert!(
        reason.contains("the conversation was on b, which may not answer: would cost"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_failed_answer_raises_the_floor_for_the_rest_of_its_conversation() {
    let upstream = MockUpstream::start().await;
    let large = cloud_model("large", 6.0, &upstream).replace("\"small\"", "\"frontier\"");
    let small = cloud_model("small", 1.0, &upstream);
    let app = TestApp::start(&format!("[policies.default]\nfloor = 0.3\n{small}{large}")).await;
    let question = "Explain in two sentences why the sky is blue and the sunset red, please.";
    let first = ask("auto", question);
    let answered = app.chat(&first).await;
    assert_eq!(answered.receipt()["model"], "small");
    let request_id = &answered.receipt()["request_id"];
    let verdict = json!({"request_id": request_id, "verdict": "bad"});
    assert_eq!(app.post("/v1/feedback", &verdict).await.status, 200);
    let second = next_turn(&first, question);
    let better = app.chat(&second).await;
    assert_eq!(better.receipt()["model"], "large", "{}", better.text);
    let third = app.chat(&next_turn(&second, question)).await;
    assert_eq!(third.receipt()["model"], "large", "for the rest of the conversation");
    let other = app.chat(&ask("auto", question)).await;
    assert_eq!(other.receipt()["model"], "small", "and for no other");
}

#[tokio::test]
async fn a_local_only_conversation_stays_local_in_later_turns() {
    let (app, upstream) = twins("").await;
    let first = ask("auto", "my secret diary");
    assert_eq!(with(&app, ("x-wattgate-local-only", "true"), &first).await.status, 503);
    let second = next_turn(&first, "and its last page?");
    assert_eq!(app.chat(&second).await.status, 503, "found by its prefix");
    assert_eq!(app.chat(&next_turn(&second, "Hm?")).await.status, 503);
    let mut named = next_turn(&first, "by name");
    named["model"] = json!("a");
    assert_eq!(app.chat(&named).await.status, 503, "a model's own name opens no door");

    // The session header identifies the conversation, whatever its text.
    for name in [
        json!({"user": "u1"}),
        json!({"metadata": {"session_id": "m1"}}),
        json!({"wattgate": {"session": "s1"}}),
    ] {
        let say = |text: &str| {
            let mut body = ask("auto", text);
            body.as_object_mut().unwrap().extend(name.as_object().unwrap().clone());
            body
        };
        let kept = with(&app, ("x-wattgate-local-only", "true"), &say("one")).await;
        assert_eq!(kept.status, 503);
        assert_eq!(app.chat(&say("something else")).await.status, 503, "{name}");
    }
    let header = ("x-wattgate-session", "s1");
    assert_eq!(
        with(&app, header, &ask("auto", "third")).await.status,
        503,
        "header and body are one"
    );
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(app.chat(&ask("auto", "another conversation")).await.status, 200);
}

#[tokio::test]
async fn a_local_only_prefix_keeps_later_requests_local() {
    let (app, upstream) = twins("").await;
    let first = ask("auto", "This is my secret diary, and nobody else may read it.");
    with(&app, ("x-wattgate-local-only", "true"), &first).await;
    // A client that sends the latest turns only, and one that uses another session name.
    let mut third =
        next_turn(&next_turn(&first, "Please summarise the first page for me."), "Go on.");
    assert_eq!(app.chat(&third).await.status, 503);
    third["messages"].as_array_mut().unwrap().drain(..2);
    assert_eq!(app.chat(&third).await.status, 503, "its beginning is gone");
    let named = with(&app, ("x-wattgate-session", "another"), &third).await;
    assert_eq!(named.status, 503);
    assert_eq!(upstream.requests().len(), 0);
    // A new conversation is not restricted, nor is another client with the same text.
    assert_eq!(app.chat(&first).await.status, 200);
    let other = client().post(app.url("/v1/chat/completions")).bearer_auth("another").json(&third);
    assert_eq!(other.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_dry_run_leaves_no_session_state() {
    let (app, _upstream) = twins("").await;
    let first = ask("auto", "hello there");
    let request = app.request("/v1/route").header("x-wattgate-local-only", "true");
    let dry = Reply::of(request.json(&first).send().await.unwrap()).await;
    assert_eq!((dry.status, &dry.json["model"]), (200, &Value::Null));
    assert_eq!(app.remembered_conversations(), 0);
    assert_eq!(app.chat(&next_turn(&first, "and now?")).await.status, 200);
}

#[tokio::test]
async fn a_cached_conversation_lowers_the_predicted_prefill() {
    let app = TestApp::start_fake(&fake_smol("")).await;
    app.until_loaded("smol").await;
    let story = "Once upon a time there was a lighthouse keeper who counted ships. ".repeat(8);
    let mut first = ask("auto", &story);
    first["max_tokens"] = json!(8);
    let answered = app.chat(&first).await;
    assert_eq!(answered.status, 200, "{}", answered.text);
    let mut second = first.clone();
    let turns = second["messages"].as_array_mut().unwrap();
    turns.push(json!({"role": "assistant", "content": answered.content()}));
    turns.push(json!({"role": "user", "content": "Go on."}));
    let reply = app.chat(&second).await;
    let candidate = &reply.receipt()["candidates"][0];
    let cache = &candidate["cache"];
    assert!(cache["tokens"].as_u64() > Some(60), "{candidate}");
    assert!(cache["without"]["joules"].as_f64() > candidate["joules"].as_f64(), "{candidate}");
    assert!(cache["without"]["ttft_ms"].as_f64() >= candidate["ttft_ms"].as_f64(), "{candidate}");
    let cached = reply.json["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
    assert!(cached > Some(60), "and it did: {}", reply.json["usage"]);
    assert!(candidate["output_tokens"].as_u64() <= Some(8), "{candidate}");
    app.stop().await;
}
