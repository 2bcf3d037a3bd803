//! The next candidate answers until the first word: an opening chunk says nothing yet.

use std::time::Duration;

use serde_json::json;

use crate::rig::app::{TestApp, ask, ask_streaming, cloud_model, cloud_model_at};
use crate::rig::mock_upstream::MockUpstream;
use crate::rig::unruly_upstream::{Step, UnrulyUpstream};

/// A cheap model that plays `steps`, and a dear one that is healthy. Idle streams fail after 0.3 s.
async fn gateway(steps: Vec<Step>) -> (TestApp, UnrulyUpstream, MockUpstream) {
    let (cheap, dear) = (UnrulyUpstream::start(vec![steps]).await, MockUpstream::start().await);
    let cheap_config = cloud_model_at("cheap", 3.0, &cheap.base_url())
        + "idle_timeout_ms = 300\nfirst_byte_timeout_ms = 400\n";
    let dear_config = cloud_model("dear", 3.0, &dear).replace("\"small\"", "\"frontier\"");
    (TestApp::start(&(cheap_config + &dear_config)).await, cheap, dear)
}

/// What may come before the first word, each of it.
fn openings() -> Vec<Vec<Step>> {
    let filtered = json!({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]});
    vec![
        vec![],
        vec![Step::role()],
        vec![Step::Say(": comment\n\n".to_owned()), Step::role(), Step::text("")],
        vec![Step::data(filtered), Step::role()],
    ]
}

#[tokio::test]
async fn a_failure_after_an_opening_chunk_moves_to_the_next_candidate() {
    let failures = [
        vec![Step::error("overloaded", 503)],
        vec![],
        vec![Step::Silence],
        vec![Step::data("{\"choices\": 7}")],
    ];
    for opening in openings() {
        for failure in &failures {
            let steps = [vec![Step::head()], opening.clone(), failure.clone()].concat();
            let (app, cheap, _dear) = gateway(steps).await;
            let sse = app.stream(&ask_streaming("auto", "hello")).await;
            let what = format!("{opening:?} {failure:?}");
            assert_eq!(sse.content(), MockUpstream::reply_to("hello"), "{what}");
            assert!(sse.done, "{what}");
            assert_eq!(sse.receipt()["model"], "dear", "{what}");
            assert_eq!(sse.receipt()["attempts"][0]["outcome"], "failed", "{what}");
            assert_eq!(cheap.requests().len(), 1);
            let ids = sse.chunks.iter().map(|chunk| &chunk["id"]);
            assert_eq!(ids.filter(|id| *id == "c").count(), 0, "nothing of the first: {what}");
        }
    }
}

#[tokio::test]
async fn after_the_first_word_of_any_kind_no_other_model_is_asked() {
    let call = json!({"tool_calls": [{"index": 0, "id": "c", "type": "function",
        "function": {"name": "f", "arguments": ""}}]});
    let words = [
        json!({"content": "Hi"}),
        json!({"reasoning_content": "Hm"}),
        json!({"reasoning": "Hm"}),
        json!({"refusal": "No"}),
        call,
    ];
    for word in words {
        let chunk = Step::chunk(&word, &json!(null));
        let steps = vec![Step::head(), Step::role(), chunk, Step::error("overloaded", 503)];
        let (app, _cheap, dear) = gateway(steps).await;
        let sse = app.stream(&ask_streaming("auto", "hello")).await;
        assert!(!sse.done, "{word}");
        assert_eq!(sse.chunks[1]["choices"][0]["delta"], word);
        assert!(sse.chunks.last().unwrap()["error"].is_object(), "{word}");
        assert!(dear.requests().is_empty(), "{word}");
    }
}

#[tokio::test]
async fn an_empty_answer_is_an_answer() {
    let (app, _cheap, dear) =
        gateway(vec![Step::head(), Step::role(), Step::finish(), Step::done()]).await;
    let sse = app.stream(&ask_streaming("auto", "hello")).await;
    assert_eq!((sse.content().as_str(), sse.done), ("", true));
    assert_eq!(sse.receipt()["model"], "cheap");
    assert!(dear.requests().is_empty());
}

#[tokio::test]
async fn an_upstream_that_only_ever_sends_empty_chunks_does_not_fill_the_memory() {
    let mut steps = vec![Step::head(), Step::role()];
    steps.extend(std::iter::repeat_n(Step::text(""), 500));
    steps.extend([Step::text("late"), Step::finish(), Step::done()]);
    let (app, _cheap, _dear) = gateway(steps).await;
    let sse = app.stream(&ask_streaming("auto", "hello")).await;
    assert_eq!((sse.content().as_str(), sse.done), ("late", true));
}

#[tokio::test]
async fn the_time_to_the_first_token_is_that_of_the_first_word() {
    let pause = Duration::from_millis(200);
    let steps =
        vec![Step::head(), Step::role(), Step::Wait(pause), Step::text("Hi"), Step::finish()];
    let (app, _cheap, _dear) = gateway(steps).await;
    app.stream(&ask_streaming("cheap", "hello")).await;
    let first_token_ms = app.until_logged(1).await[0].timings.first_token_ms.unwrap();
    assert!(first_token_ms >= 200.0, "{first_token_ms}");
}

#[tokio::test]
async fn the_client_sees_the_most_hopeful_failure() {
    let limited = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 9\r\nconnection: close\r\n\r\n";
    let failed = "HTTP/1.1 500 Oops\r\nconnection: close\r\n\r\n";
    let refused = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n\
        {\"error\":{\"message\":\"maximum context length is 8 tokens\",\
        \"code\":\"context_length_exceeded\"}}";
    let raw = |text: &str| vec![Step::Say(text.to_owned())];
    for (first, second, status, wait) in [
        (limited, failed, 429, "9"),
        (failed, limited, 429, "9"),
        (limited, refused, 429, "9"),
        (refused, limited, 429, "9"),
        (refused, failed, 502, ""),
        (refused, refused, 400, ""),
    ] {
        for request in [ask("auto", "hello"), ask_streaming("auto", "hello")] {
            let a = UnrulyUpstream::start(vec![raw(first)]).await;
            let b = UnrulyUpstream::start(vec![raw(second)]).await;
            let dear = cloud_model_at("b", 3.0, &b.base_url()).replace("\"small\"", "\"frontier\"");
            let app = TestApp::start(&(cloud_model_at("a", 3.0, &a.base_url()) + &dear)).await;
            let reply = app.chat(&request).await;
            assert_eq!(reply.status, status, "{first} {second}: {}", reply.text);
            assert_eq!(reply.header("retry-after"), wait, "{first} {second}");
            assert_eq!((a.requests().len(), b.requests().len()), (1, 1));
        }
    }
}
