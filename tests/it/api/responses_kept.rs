//! Kept answers of `/v1/responses`: fetched, continued and forgotten by their client alone, and
//! what a conversation inherits.

use serde_json::{Value, json};

use crate::rig::app::{Reply, TestApp, client, cloud_model};
use crate::rig::local_models::fake_smol;
use crate::rig::mock_upstream::MockUpstream;

const PATH: &str = "/v1/responses";

async fn cloud() -> (TestApp, MockUpstream) {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start(&cloud_model("cloud", 3.0, &upstream)).await;
    (app, upstream)
}

/// As a client with this key.
async fn with_key(app: &TestApp, key: &str, method: reqwest::Method, path: &str) -> Reply {
    let request = client().request(method, app.url(path)).bearer_auth(key);
    Reply::of(request.send().await.unwrap()).await
}

/// The key of the rig's requests.
const OWN: &str = "sk-the-clients-own-key";

async fn fetched(app: &TestApp, path: &str) -> Reply {
    with_key(app, OWN, reqwest::Method::GET, path).await
}

fn id(reply: &Reply) -> String {
    reply.json["id"].as_str().unwrap_or_else(|| panic!("{}", reply.text)).to_owned()
}

#[tokio::test]
async fn an_answer_is_continued_with_all_that_came_before() {
    let (app, upstream) = cloud().await;
    let first = json!({"model": "auto", "input": "one", "instructions": "Be brief."});
    let first = app.post(PATH, &first).await;
    let second = json!({"model": "auto", "input": "two", "previous_response_id": id(&first),
        "stream": true});
    let streamed = app.send(PATH, &second).await.text().await.unwrap();
    let last = streamed.rsplit("data: ").next().unwrap();
    let last: Value = serde_json::from_str(last.split("\n\n").next().unwrap()).unwrap();
    let third = json!({"model": "auto", "input": [{"role": "user", "content": "three"}],
        "previous_response_id": last["response"]["id"]});
    let third = app.post(PATH, &third).await;
    assert_eq!(third.json["previous_response_id"], last["response"]["id"], "{}", third.text);
    let answer = MockUpstream::reply_to;
    assert_eq!(
        upstream.requests()[2].body["messages"],
        json!([
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": answer("one")},
            {"role": "user", "content": "two"},
            {"role": "assistant", "content": answer("two")},
            {"role": "user", "content": "three"},
        ])
    );
    let items = fetched(&app, &format!("{PATH}/{}/input_items?order=asc", id(&third))).await;
    let kinds: Vec<_> = items.json["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["role"].as_str().unwrap(), item["id"].is_string()))
        .collect();
    let user = ("user", true);
    assert_eq!(kinds, [user, ("assistant", true), user, ("assistant", true), user]);
    let page = fetched(&app, &format!("{PATH}/{}/input_items?limit=2", id(&third))).await;
    assert_eq!(
        (&page.json["has_more"], &page.json["data"][0]["role"]),
        (&json!(true), &"user".into())
    );
    let after = page.json["last_id"].as_str().unwrap();
    let path = format!("{PATH}/{}/input_items?limit=5&after={after}", id(&third));
    assert_eq!(fetched(&app, &path).await.json["data"].as_array().unwrap().len(), 3);
    for wrong in ["limit=0", "limit=x", "order=up", "after=nothing"] {
        let path = format!("{PATH}/{}/input_items?{wrong}", id(&third));
        assert_eq!(fetched(&app, &path).await.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn items_are_sent_again_by_reference() {
    let (app, upstream) = cloud().await;
    let first = app.post(PATH, &json!({"model": "auto", "input": "one"})).await;
    let item = first.json["output"][0]["id"].clone();
    let next = json!({"model": "auto", "input": [{"role": "user", "content": "one"},
        {"type": "item_reference", "id": item}, {"role": "user", "content": "two"}]});
    assert_eq!(app.post(PATH, &next).await.status, 200);
    let sent = &upstream.requests()[1].body["messages"];
    assert_eq!(sent[1], json!({"role": "assistant", "content": MockUpstream::reply_to("one")}));
}

#[tokio::test]
async fn an_answer_is_its_clients_alone() {
    let (app, _upstream) = cloud().await;
    let reply = app.post(PATH, &json!({"model": "auto", "input": "one"})).await;
    let path = format!("{PATH}/{}", id(&reply));
    let kept = fetched(&app, &path).await;
    assert_eq!((&kept.json["output"], kept.status), (&reply.json["output"], 200));
    let other = |method| with_key(&app, "sk-other", method, &path);
    assert_eq!(other(reqwest::Method::GET).await.error().2, "response_not_found");
    assert_eq!(other(reqwest::Method::DELETE).await.status, 404);
    let next = json!({"model": "auto", "input": "x", "previous_response_id": id(&reply)});
    let foreign = client().post(app.url(PATH)).bearer_auth("sk-other").json(&next);
    let foreign = Reply::of(foreign.send().await.unwrap()).await;
    assert_eq!(foreign.error(), (400, "invalid_request_error", "previous_response_not_found"));
    let cancelled = with_key(&app, OWN, reqwest::Method::POST, &format!("{path}/cancel")).await;
    assert_eq!(cancelled.status, 400);
    let forgotten = with_key(&app, OWN, reqwest::Method::DELETE, &path).await;
    assert_eq!(forgotten.json["deleted"], true, "{}", forgotten.text);
    assert_eq!(fetched(&app, &path).await.status, 404);
}

#[tokio::test]
async fn what_is_not_to_be_kept_is_not() {
    let (app, _upstream) = cloud().await;
    let reply = app.post(PATH, &json!({"model": "auto", "input": "one", "store": false})).await;
    assert_eq!(reply.json["store"], false);
    assert_eq!(fetched(&app, &format!("{PATH}/{}", id(&reply))).await.status, 404);
}

#[tokio::test]
async fn a_conversation_that_had_to_stay_stays() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start_fake(&(fake_smol("") + &cloud_model("cloud", 4.0, &upstream))).await;
    app.until_loaded("smol").await;
    let hard = "Prove that every finite group of order p^2 is abelian.";
    let free = app.post(PATH, &json!({"model": "auto", "input": hard})).await;
    assert_eq!(free.receipt()["model"], "cloud", "{}", free.text);
    let local = json!({"model": "auto", "input": hard, "wattgate": {"local_only": true}});
    let first = app.post(PATH, &local).await;
    assert_eq!(first.receipt()["model"], "smol");
    // Kept or not, and whichever model is named.
    let mut previous = id(&first);
    for store in [true, false] {
        let next = json!({"model": "auto", "input": format!("{hard} And p^3?"), "store": store,
            "previous_response_id": previous});
        let next = app.post(PATH, &next).await;
        assert_eq!(next.receipt()["model"], "smol", "{}", next.text);
        previous = id(&next);
    }
    let named = json!({"model": "cloud", "input": "x", "previous_response_id": id(&first)});
    assert_eq!(app.post(PATH, &named).await.error().0, 503);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn the_name_of_a_conversation_is_inherited() {
    let (app, _upstream) = cloud().await;
    let body = json!({"model": "auto", "input": "one"});
    let first = app.request(PATH).header("x-wattgate-session", "trip").json(&body);
    let first = Reply::of(first.send().await.unwrap()).await;
    let next = json!({"model": "auto", "input": "two", "previous_response_id": id(&first)});
    let next = app.post(PATH, &next).await;
    assert_eq!(next.header("x-wattgate-session"), first.header("x-wattgate-session"));
}

#[tokio::test]
async fn the_store_is_bounded() {
    let upstream = MockUpstream::start().await;
    let config = cloud_model("cloud", 3.0, &upstream);
    let app = TestApp::start_with(&config, |config| config.server.responses.entries = 2).await;
    let mut ids = Vec::new();
    for input in ["one", "two", "three"] {
        ids.push(id(&app.post(PATH, &json!({"model": "auto", "input": input})).await));
    }
    let status = async |id: &str| fetched(&app, &format!("{PATH}/{id}")).await.status;
    assert_eq!([status(&ids[0]).await, status(&ids[2]).await], [404, 200]);
}
