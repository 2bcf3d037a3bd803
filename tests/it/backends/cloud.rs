//! The cloud backend against a real HTTP server: requests, forwarded answers, failures.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use wattgate::backends::cloud::{ApiKey, CloudBackend, Config};
use wattgate::backends::{Backend, BackendError, ErrorKind, Event, Job, SchedulingOptions};
use wattgate::openai::{FinishReason, Request, Usage};
use wattgate::units::AttemptId;

use crate::rig::mock_upstream::{MockUpstream, Mode};

fn config(base_url: String) -> Config {
    Config { base_url, model: Some("gpt-x".into()), ..Config::default() }
}

fn backend(config: Config) -> CloudBackend {
    CloudBackend::new(Arc::from("cloud-mini"), config, None).unwrap()
}

fn job(body: &Value) -> Job {
    let body = body.to_string();
    Job {
        attempt: AttemptId(1),
        request: Arc::new(Request::Chat(serde_json::from_str(&body).unwrap())),
        body: body.into(),
        terms: SchedulingOptions::default(),
    }
}

fn asking(prompt: &str, stream: bool) -> Job {
    job(&json!({
        "model": "auto", "stream": stream, "messages": [{"role": "user", "content": prompt}],
    }))
}

/// All events of an attempt.
#[derive(Debug, Default)]
struct Run {
    started: bool,
    upstream: Vec<Value>,
    usage: Option<Usage>,
    end: Option<Result<FinishReason, BackendError>>,
}

impl Run {
    async fn of(backend: &CloudBackend, job: Job) -> Self {
        let mut run = Self::default();
        let mut events = backend.start(job);
        while let Some(event) = events.next().await {
            assert!(run.end.is_none(), "nothing follows the end: {event:?}");
            match event {
                Ok(Event::Started) => run.started = true,
                Ok(Event::UpstreamChunks(chunks)) => {
                    let objects =
                        chunks.objects().map(|object| serde_json::from_str(object).unwrap());
                    run.upstream.extend(objects);
                }
                Ok(Event::UpstreamAnswer(object)) => {
                    run.upstream.push(serde_json::from_slice(&object).unwrap());
                }
                Ok(Event::Usage(usage)) => run.usage = Some(usage),
                Ok(Event::Done(reason)) => run.end = Some(Ok(reason)),
                Ok(other) => panic!("{other:?}"),
                Err(error) => run.end = Some(Err(error)),
            }
        }
        run
    }

    fn text(&self) -> String {
        let deltas = self.upstream.iter().map(|chunk| &chunk["choices"][0]["delta"]["content"]);
        deltas.filter_map(Value::as_str).collect()
    }

    fn error(self) -> ErrorKind {
        self.end.expect("it ends").expect_err("it fails").kind
    }
}

#[tokio::test]
async fn a_streamed_answer_passes_through_however_it_is_cut() {
    let upstream = MockUpstream::start().await;
    let backend = backend(config(upstream.base_url()));
    for mode in [Mode::Answer, Mode::TinyWrites, Mode::SlowChunks(Duration::from_millis(1))] {
        upstream.respond_with(mode);
        let run = Run::of(&backend, asking("hello you", true)).await;
        assert!(run.started);
        assert_eq!(run.text(), MockUpstream::reply_to("hello you"));
        assert_eq!(run.end, Some(Ok(FinishReason::Stop)));
        assert_eq!(run.usage.map(|u| (u.prompt_tokens, u.completion_tokens)), Some((2, 6)));
        assert!(run.upstream.iter().all(|chunk| chunk["choices"] != json!([])), "usage withheld");
    }
}

#[tokio::test]
async fn a_whole_answer_passes_through() {
    let upstream = MockUpstream::start().await;
    let run = Run::of(&backend(config(upstream.base_url())), asking("hello", false)).await;
    let content = &run.upstream[0]["choices"][0]["message"]["content"];
    assert_eq!(content, &json!(MockUpstream::reply_to("hello")));
    assert_eq!((run.upstream.len(), run.end), (1, Some(Ok(FinishReason::Stop))));
    assert_eq!(run.usage.unwrap().total_tokens, 6);
}

#[tokio::test]
async fn the_request_keeps_unknown_fields_and_carries_only_our_key() {
    let upstream = MockUpstream::start().await;
    let config = Config { api_key_env: Some("CLOUD_KEY".into()), ..config(upstream.base_url()) };
    let key = ApiKey::new("sk-ours").unwrap();
    let backend = CloudBackend::new(Arc::from("cloud-mini"), config, Some(&key)).unwrap();
    let request = json!({
        "model": "auto", "stream": true, "messages": [{"role": "user", "content": "hi", "x": 1}],
        "x_vendor": {"deep": [1, 2]}, "wattgate": {"floor": 0.5},
    });
    Run::of(&backend, job(&request)).await;

    let received = upstream.requests().remove(0);
    assert_eq!(received.headers["authorization"], "Bearer sk-ours");
    assert_eq!(received.headers["accept"], "text/event-stream");
    assert_eq!(
        received.body,
        json!({
            "model": "gpt-x", "stream": true, "messages": [{"role": "user", "content": "hi", "x": 1}],
            "x_vendor": {"deep": [1, 2]}, "stream_options": {"include_usage": true},
        })
    );
    assert!(received.raw.contains(r#""x_vendor":{"deep":[1,2]}"#));
    assert!(!format!("{backend:?}").contains("sk-ours"));
}

#[tokio::test]
async fn a_refusal_says_what_it_is_and_repeats_no_key() {
    let upstream = MockUpstream::start().await;
    let reason = || Some("Refused; you sent none".to_owned());
    let rate_limited =
        ErrorKind::RateLimited { retry_after: Some(Duration::from_secs(7)), reason: reason() };
    let cases = [
        (Mode::Status(401), ErrorKind::Credentials { status: 401 }),
        (Mode::RateLimited("7"), rate_limited),
        (
            Mode::Status(500),
            ErrorKind::UpstreamStatus { status: 500, retry_after: None, reason: reason() },
        ),
    ];
    for (mode, expected) in cases {
        upstream.respond_with(mode);
        let backend = backend(config(upstream.base_url()));
        let run = Run::of(&backend, asking("hi", true)).await;
        assert!(!run.started, "nothing started: another model may answer");
        assert_eq!(run.error(), expected);
    }
    for status in [400, 413, 429, 500] {
        upstream.respond_with(Mode::Status(status));
        let key = ApiKey::new("my-own-secret").unwrap();
        let name = Arc::from("cloud-mini");
        let backend = CloudBackend::new(name, config(upstream.base_url()), Some(&key)).unwrap();
        let kind = Run::of(&backend, asking("hi", false)).await.error();
        let words = format!("{kind} {kind:?}");
        assert!(words.contains("Refused; you sent") && !words.contains("secret"), "{words}");
    }
}

#[tokio::test]
async fn an_upstream_that_asks_for_rest_says_when_it_is_ready() {
    let upstream = MockUpstream::start().await;
    let backend = backend(config(upstream.base_url()));
    assert_eq!(backend.health().ready_in, None);
    Run::of(&backend, asking("play 429", true)).await.error();
    let health = backend.health();
    let wait = health.ready_in.expect("it is known");
    assert!(!health.ready && wait > Duration::from_secs(6) && wait <= Duration::from_secs(7));
    let refused = Run::of(&backend, asking("hi", true)).await.error();
    assert!(
        matches!(refused, ErrorKind::RateLimited { retry_after: Some(left), .. } if left <= wait)
    );
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn malformed_upstream_answers_are_protocol_errors() {
    let upstream = MockUpstream::start().await;
    for prompt in ["play garbage", "play html"] {
        for stream in [true, false] {
            let backend = backend(config(upstream.base_url()));
            let run = Run::of(&backend, asking(prompt, stream)).await;
            assert_eq!(run.error().label(), "protocol", "{prompt} {stream}");
        }
    }
    let backend = backend(config(upstream.base_url()));
    upstream.respond_with(Mode::Verbatim(200, "text/event-stream", "not an event\n\n"));
    assert_eq!(Run::of(&backend, asking("hi", true)).await.error().label(), "protocol");
    upstream.respond_with(Mode::Verbatim(301, "text/plain", ""));
    assert_eq!(Run::of(&backend, asking("hi", true)).await.error().label(), "protocol");
    let misplaced = r#"{"error":{"message":"m","code":429}}"#;
    upstream.respond_with(Mode::Verbatim(200, "application/json", misplaced));
    assert_eq!(Run::of(&backend, asking("hi", true)).await.error().label(), "rate_limited");
}

#[tokio::test]
async fn an_endless_event_is_cut_off() {
    let upstream = MockUpstream::start().await;
    let endless: &'static str = Box::leak("data: x".repeat(5 << 20).into_boxed_str());
    upstream.respond_with(Mode::Verbatim(200, "text/event-stream", endless));
    let kind = Run::of(&backend(config(upstream.base_url())), asking("hi", true)).await.error();
    assert!(kind.to_string().contains("over 33554432 bytes"), "{kind}");
}

#[tokio::test]
async fn a_truncated_answer_is_an_error() {
    let upstream = MockUpstream::start().await;
    let backend = backend(config(upstream.base_url()));
    let label = async |mode: Mode, stream: bool| {
        upstream.respond_with(mode);
        let run = Run::of(&backend, asking("one two three four", stream)).await;
        assert!(run.started);
        assert_eq!(!run.upstream.is_empty(), stream, "chunks came before the break");
        run.error().label()
    };
    assert_eq!(label(Mode::CutMidAnswer, true).await, "unavailable");
    assert_eq!(label(Mode::CutMidAnswer, false).await, "unavailable");
    assert_eq!(label(Mode::ErrorMidStream, true).await, "upstream_status");
}

#[tokio::test]
async fn every_upstream_wait_times_out() {
    let upstream = MockUpstream::start().await;
    let plain = config(upstream.base_url());
    let wait_ms = 40;
    let hasty_start = Config { first_byte_timeout_ms: wait_ms, ..plain.clone() };
    let hasty_gap = Config { idle_timeout_ms: wait_ms, ..plain.clone() };
    let hasty_whole = Config { answer_timeout_ms: wait_ms, ..plain };
    for (config, prompt, stream) in [
        (hasty_start, "play hang", true),
        (hasty_gap, "play hang-mid", true),
        (hasty_whole.clone(), "play hang", false),
        (hasty_whole, "play hang-mid", false),
    ] {
        let kind = Run::of(&backend(config), asking(prompt, stream)).await.error();
        let after = Duration::from_millis(wait_ms);
        assert_eq!(kind, ErrorKind::Timeout { after }, "{prompt} {stream}");
    }
    upstream.until_open(0).await;
}

#[tokio::test]
async fn dropping_the_stream_cancels_the_upstream_request() {
    let upstream = MockUpstream::start().await;
    let backend = backend(config(upstream.base_url()));
    for prompt in ["play hang", "play hang-mid"] {
        let mut events = backend.start(asking(prompt, true));
        tokio::select! {
            () = upstream.until_open(1) => {}
            () = async { while events.next().await.is_some() {} } => panic!("it hangs"),
        }
        assert_eq!(backend.health().in_flight, 1);
        drop(events);
        upstream.until_open(0).await;
        assert_eq!(backend.health().in_flight, 0);
    }
}

#[tokio::test]
async fn an_unreachable_upstream_is_unavailable_and_tells_no_secret() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = config(format!("http://{closed}/v1?key=sk-query"));
    let kind = Run::of(&backend(config), asking("hi", true)).await.error();
    assert_eq!(kind.label(), "unavailable");
    let message = kind.to_string();
    assert!(message.contains("cannot connect") && !message.contains("sk-query"), "{message}");
}

#[tokio::test]
async fn without_its_key_it_is_not_ready_and_sends_nothing() {
    let upstream = MockUpstream::start().await;
    let backend =
        backend(Config { api_key_env: Some("NO_SUCH_KEY".into()), ..config(upstream.base_url()) });
    assert_eq!((backend.health().ready, backend.missing_key()), (false, Some("NO_SUCH_KEY")));
    let kind = Run::of(&backend, asking("hi", true)).await.error();
    assert!(kind.to_string().contains("NO_SUCH_KEY"), "{kind}");
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn requests_above_the_concurrency_limit_are_refused_at_once() {
    let upstream = MockUpstream::start().await;
    let backend = backend(Config { max_in_flight: 1, ..config(upstream.base_url()) });
    let mut first = backend.start(asking("hi", true));
    assert!(matches!(first.next().await, Some(Ok(Event::Started))));
    let refused = Run::of(&backend, asking("hi", true)).await.error();
    assert_eq!(refused.label(), "overloaded");
    drop(first);
    assert!(Run::of(&backend, asking("hi", true)).await.end.unwrap().is_ok());
}

#[tokio::test]
async fn repeated_failures_open_the_circuit_breaker() {
    let upstream = MockUpstream::start().await;
    let backend = backend(config(upstream.base_url()));
    for _ in 0..5 {
        assert!(backend.health().ready);
        Run::of(&backend, asking("play 500", true)).await.error();
    }
    assert!(!backend.health().ready);
    let kind = Run::of(&backend, asking("hi", true)).await.error();
    assert_eq!((kind.label(), upstream.requests().len()), ("unavailable", 5));
}

#[tokio::test]
async fn a_client_error_does_not_count_for_the_circuit_breaker() {
    let upstream = MockUpstream::start().await;
    upstream.respond_with(Mode::Status(400));
    let backend = backend(config(upstream.base_url()));
    for _ in 0..6 {
        assert_eq!(Run::of(&backend, asking("hi", true)).await.error().label(), "invalid_request");
    }
    assert!(backend.health().ready);
}
