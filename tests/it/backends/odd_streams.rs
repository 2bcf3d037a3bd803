//! Streams of upstreams that do not end, or do not go on, as OpenAI's do: through the front door,
//! each within a few seconds.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::rig::app::{Sse, TestApp, ask_streaming};
use crate::rig::unruly_upstream::{Step, UnrulyUpstream, stream_of};

const ROLE: &str = r#"{"id":"u","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
const HELLO: &str =
    r#"{"id":"u","choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}"#;
const FINISH: &str = r#"{"id":"u","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const WORLD_FINISH: &str =
    r#"{"id":"u","choices":[{"index":0,"delta":{"content":" world"},"finish_reason":"stop"}]}"#;
const CALL_FINISH: &str = r#"{"id":"u","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#;
const USAGE: &str =
    r#"{"id":"u","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}"#;
const SECOND: &str =
    r#"{"id":"u","choices":[{"index":1,"delta":{"content":"two"},"finish_reason":null}]}"#;
const SECOND_FINISH: &str =
    r#"{"id":"u","choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}"#;
const EMPTY_FINISH: &str =
    r#"{"id":"u","choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":""}]}"#;
const DONE: &str = "[DONE]";

/// Much longer than the wait for the usage, so that a test would notice it.
const IDLE: &str = "idle_timeout_ms = 20000";

struct Case {
    name: &'static str,
    choices: u32,
    events: Vec<&'static str>,
    then: Step,
    /// The text of choice 0; `None` if the answer fails.
    text: Option<&'static str>,
}

fn case(
    name: &'static str,
    events: &[&'static str],
    then: Step,
    text: Option<&'static str>,
) -> Case {
    Case { name, choices: 1, events: events.to_vec(), then, text }
}

fn two(name: &'static str, events: &[&'static str], then: Step, whole: bool) -> Case {
    let text = whole.then_some("Hello");
    Case { name, choices: 2, events: events.to_vec(), then, text }
}

/// What ends well.
fn whole() -> Vec<Case> {
    let (hello, both) = (Some("Hello"), Some("Hello world"));
    vec![
        case("an empty finish goes on", &[ROLE, EMPTY_FINISH, FINISH, DONE], Step::Close, hello),
        case("no [DONE], silence", &[HELLO, FINISH], Step::Silence, hello),
        case("no [DONE], usage, silence", &[HELLO, FINISH, USAGE], Step::Silence, hello),
        case("text and finish in one", &[HELLO, WORLD_FINISH], Step::Silence, both),
        case("a whole call with its finish", &[CALL_FINISH], Step::Silence, Some("")),
        case("heartbeats after the finish", &[HELLO, FINISH], Step::Repeat(": ping\n\n"), hello),
        case(
            "chunks after the finish",
            &[HELLO, FINISH],
            Step::Repeat("data: {\"choices\":[]}\n\n"),
            hello,
        ),
        case("cut after the finish", &[HELLO, FINISH], Step::Close, hello),
        case(
            "half an event after the finish",
            &[HELLO, FINISH, "data: {\"cho\n"],
            Step::Close,
            hello,
        ),
        case(
            "an error after the finish",
            &[HELLO, FINISH, r#"{"error":{"message":"late"}}"#],
            Step::Close,
            hello,
        ),
        case("[DONE] without a finish", &[HELLO, DONE], Step::Close, hello),
        case(
            "a byte order mark",
            &["\u{feff}data: {\"choices\":[]}\n\n", HELLO, FINISH, DONE],
            Step::Close,
            hello,
        ),
        case(
            "odd events",
            &[
                "ping",
                "",
                "7",
                r#"{"choices":[null]}"#,
                HELLO,
                r#"{"choices":[{"finish_reason":7}]}"#,
                r#"{"choices":[{"delta":{},"logprobs":[NaN]}],"error":{}}"#,
                FINISH,
                DONE,
            ],
            Step::Close,
            hello,
        ),
        two("two choices in order", &[HELLO, FINISH, SECOND, SECOND_FINISH], Step::Silence, true),
        two(
            "two choices, the second first",
            &[SECOND, SECOND_FINISH, HELLO, FINISH],
            Step::Silence,
            true,
        ),
        two("one choice of two, and [DONE]", &[HELLO, FINISH, DONE], Step::Close, true),
    ]
}

/// What breaks off.
fn broken() -> Vec<Case> {
    let error = r#"{"error":{"message":"no","code":"overloaded_error"}}"#;
    vec![
        case(
            "an empty finish, then the end",
            &[ROLE, EMPTY_FINISH, EMPTY_FINISH],
            Step::Close,
            None,
        ),
        case("no finish, then the end", &[HELLO], Step::Close, None),
        case(
            "a number as finish, then the end",
            &[HELLO, r#"{"choices":[{"finish_reason":7}]}"#],
            Step::Close,
            None,
        ),
        case("an error", &[HELLO, error], Step::Silence, None),
        case(
            "a named error",
            &[HELLO, "event: error\ndata: {\"message\":\"no\",\"code\":500}\n\n"],
            Step::Silence,
            None,
        ),
        case("half a chunk", &[HELLO, "{\"choices\":[{\"de"], Step::Silence, None),
        two("half of the second choice", &[HELLO, FINISH, SECOND], Step::Close, false),
        two("nothing of the second choice", &[HELLO, FINISH], Step::Close, false),
    ]
}

async fn play(case: Case) {
    let upstream = UnrulyUpstream::streaming(&case.events, case.then).await;
    let app = TestApp::start(&upstream.model(IDLE)).await;
    let started = Instant::now();
    let mut request = ask_streaming("m", "hi");
    request["n"] = json!(case.choices);
    let sse = app.stream(&request).await;
    let name = case.name;
    assert!(started.elapsed() < Duration::from_secs(12), "{name}: {:?}", started.elapsed());
    let receipts = sse.chunks.iter().filter(|chunk| !chunk["wattgate"].is_null()).count();
    assert_eq!(receipts, 1, "{name}");
    let outcome = &sse.receipt()["attempts"][0]["outcome"];
    let Some(text) = case.text else {
        assert_eq!((sse.done, outcome), (false, &json!("failed")), "{name}");
        assert!(!sse.chunks.last().unwrap()["error"].is_null(), "{name}");
        return;
    };
    assert_eq!((sse.done, outcome), (true, &json!("answered")), "{name}: {:?}", sse.chunks);
    assert_eq!(text_of(&sse, 0), text, "{name}");
    for index in 0..2 {
        let finishes = finishes(&sse, index);
        assert!(finishes <= 1, "{name}: {finishes} finishes of choice {index}");
    }
    assert_eq!(finishes(&sse, 0), 1, "{name}");
    assert!(sse.chunks.iter().all(|chunk| chunk["usage"].is_null()), "{name}: not asked for");
}

fn choices(sse: &Sse, index: u64) -> impl Iterator<Item = &Value> {
    let all = sse.chunks.iter().filter_map(|chunk| chunk["choices"].as_array()).flatten();
    all.filter(move |choice| choice["index"].as_u64().unwrap_or(0) == index)
}

fn text_of(sse: &Sse, index: u64) -> String {
    choices(sse, index).filter_map(|choice| choice["delta"]["content"].as_str()).collect()
}

fn finishes(sse: &Sse, index: u64) -> usize {
    let words = choices(sse, index).filter_map(|choice| choice["finish_reason"].as_str());
    words.filter(|word| !word.is_empty()).count()
}

#[tokio::test]
async fn a_stream_that_has_said_everything_is_answered_soon_and_another_one_fails() {
    join_all(whole().into_iter().chain(broken()).map(play)).await;
}

#[tokio::test]
async fn text_leaves_at_once_even_if_it_comes_with_the_finish() {
    for last in [WORLD_FINISH, CALL_FINISH] {
        let upstream = UnrulyUpstream::streaming(&[HELLO, last], Step::Silence).await;
        let app = TestApp::start(&upstream.model(IDLE)).await;
        let response = app.send("/v1/chat/completions", &ask_streaming("m", "hi")).await;
        let (mut bytes, mut seen) = (response.bytes_stream(), String::new());
        while !(seen.contains(" world") || seen.contains("tool_calls\":[")) {
            seen.push_str(&String::from_utf8_lossy(&bytes.next().await.unwrap().unwrap()));
        }
        assert!(!seen.contains("wattgate\":"), "the receipt comes with the end: {seen}");
    }
}

#[tokio::test]
async fn a_stream_is_known_by_its_first_bytes() {
    for content_type in ["application/json", "text/plain", "text/event-stream, text/event-stream"] {
        let script = stream_of(content_type, &[HELLO, FINISH, DONE], Step::Close);
        let upstream = UnrulyUpstream::start(vec![script]).await;
        let app = TestApp::start(&upstream.model("")).await;
        assert_eq!(app.stream(&ask_streaming("m", "hi")).await.content(), "Hello");
    }
    let answer = "{\"id\":\"u\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hello\"},\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n";
    for content_type in ["application/json", "text/event-stream"] {
        let script = stream_of(content_type, &[answer], Step::Close);
        let upstream = UnrulyUpstream::start(vec![script]).await;
        let app = TestApp::start(&upstream.model("")).await;
        let sse = app.stream(&ask_streaming("m", "hi")).await;
        assert_eq!((&*sse.content(), finishes(&sse, 0), sse.done), ("Hello", 1, true));
        let record = serde_json::to_value(&app.until_logged(1).await[0]).unwrap();
        assert_eq!(record["usage"]["completion_tokens"], 2);
    }
    for (content_type, body, status) in [
        ("text/event-stream", "{\"error\":{\"message\":\"m\",\"code\":429}}\n", 429),
        ("application/json", "[{\"error\":{\"message\":\"m\",\"code\":429}}]\n", 429),
        ("text/html", "<html>Welcome!</html>\n", 502),
        ("x/secret-prompt", "Welcome!\n", 502),
    ] {
        // What is no answer is refused without waiting for its end.
        let then = if status == 502 { Step::Silence } else { Step::Close };
        let script = stream_of(content_type, &[body], then);
        let upstream = UnrulyUpstream::start(vec![script]).await;
        let app = TestApp::start(&upstream.model("")).await;
        let reply = app.chat(&ask_streaming("m", "hi")).await;
        assert_eq!(reply.status, status, "{content_type}: {}", reply.text);
        assert!(!reply.text.contains("secret-prompt") && !reply.text.contains("Welcome"));
    }
}

#[tokio::test]
async fn the_usage_chunk_reaches_the_client_that_asked_as_it_was_written() {
    let rich = r#"{"id":"u","object":"chat.completion.chunk","created":17,"model":"x-1","service_tier":"flex","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9,"cost":1.5e-5,"prompt_tokens_details":{"audio_tokens":1,"cached_tokens":3}},"x_groq":{"id":"g"}}"#;
    let upstream = UnrulyUpstream::streaming(&[HELLO, FINISH, rich, DONE], Step::Close).await;
    let app = TestApp::start(&upstream.model("")).await;
    let mut request = ask_streaming("m", "hi");
    request["stream_options"] = json!({"include_usage": true});
    let mut sse = app.stream(&request).await;
    let with_usage = sse.chunks.iter().filter(|chunk| !chunk["usage"].is_null()).count();
    assert_eq!((with_usage, sse.chunks.len()), (1, 3));
    let mut last = sse.chunks.pop().unwrap();
    assert_eq!(last["wattgate"]["attempts"][0]["outcome"], "answered");
    last.as_object_mut().unwrap().remove("wattgate");
    assert_eq!(last, serde_json::from_str::<Value>(rich).unwrap());
}

#[tokio::test]
async fn usage_that_was_seen_before_a_cut_is_owed() {
    let running = r#"{"choices":[{"index":0,"delta":{"content":"Hello"}}],"usage":{"prompt_tokens":1000,"completion_tokens":500}}"#;
    let upstream = UnrulyUpstream::streaming(&[running], Step::Close).await;
    let app = TestApp::start(&upstream.model("")).await;
    let sse = app.stream(&ask_streaming("m", "hi")).await;
    assert!(!sse.done);
    let record = serde_json::to_value(&app.until_logged(1).await[0]).unwrap();
    assert_eq!(record["usage"]["completion_tokens"], 500, "{record}");
    assert_eq!(record["dollars"], 0.006, "{record}");
}

#[tokio::test]
async fn a_model_that_thinks_after_its_headers_has_the_time_of_the_first_byte() {
    let silent = UnrulyUpstream::streaming(&[], Step::Silence).await;
    let app =
        TestApp::start(&silent.model("first_byte_timeout_ms = 600\nidle_timeout_ms = 100")).await;
    let started = Instant::now();
    let reply = app.chat(&ask_streaming("m", "hi")).await;
    assert!(reply.text.contains("600 ms"), "{}", reply.text);
    assert!(started.elapsed() >= Duration::from_millis(600));
}
