//! The head of a stream does not wait for a slow first token.

use std::time::{Duration, Instant};

use futures::StreamExt;

use crate::rig::app::{TestApp, ask, ask_streaming, cloud_model_at, eventually};
use crate::rig::unruly_upstream::{Step, UnrulyUpstream};

const HEAD_AFTER: Duration = Duration::from_millis(100);

async fn gateway(steps: Vec<Step>) -> (TestApp, UnrulyUpstream) {
    let upstream = UnrulyUpstream::start(vec![steps]).await;
    let config = cloud_model_at("slow", 3.0, &upstream.base_url());
    let head_after_ms = u64::try_from(HEAD_AFTER.as_millis()).unwrap();
    let app = TestApp::start_with(&config, |config| {
        config.server.stream_head_after_ms = head_after_ms;
    });
    (app.await, upstream)
}

#[tokio::test]
async fn the_head_and_a_comment_leave_before_a_late_first_word() {
    let pause = Duration::from_secs(2);
    for opening in [vec![Step::head()], vec![Step::head(), Step::role()], vec![]] {
        let rest =
            [Step::Wait(pause), Step::head(), Step::text("Hi"), Step::finish(), Step::done()];
        // A second head in the body is a line without a meaning for the stream.
        let steps = [opening.clone(), rest.to_vec()].concat();
        let (app, _upstream) = gateway(steps).await;
        let asked = Instant::now();
        let response = app.send("/v1/chat/completions", &ask_streaming("auto", "hello")).await;
        assert!(asked.elapsed() >= HEAD_AFTER && asked.elapsed() < pause, "{opening:?}");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut body = response.bytes_stream();
        let first = body.next().await.unwrap().unwrap();
        assert_eq!(&first[..], b":\n\n");
        assert!(asked.elapsed() < pause, "{opening:?}");
        let mut rest = Vec::new();
        while let Some(piece) = body.next().await {
            rest.extend_from_slice(&piece.unwrap());
        }
        let rest = String::from_utf8(rest).unwrap();
        assert!(rest.contains("\"Hi\"") && rest.ends_with("data: [DONE]\n\n"), "{rest}");
    }
}

#[tokio::test]
async fn a_late_failure_is_an_event_and_an_early_one_a_status() {
    let failed = Step::Say("HTTP/1.1 500 Oops\r\nconnection: close\r\n\r\n".to_owned());
    let (app, _upstream) = gateway(vec![failed.clone()]).await;
    assert_eq!(app.chat(&ask_streaming("auto", "hello")).await.status, 502);

    let (app, _upstream) = gateway(vec![Step::Wait(3 * HEAD_AFTER), failed]).await;
    let sse = app.stream(&ask_streaming("auto", "hello")).await;
    let last = sse.chunks.last().unwrap();
    assert_eq!(last["error"]["code"], "upstream_status");
    assert_eq!(last["wattgate"]["attempts"][0]["outcome"], "failed");
    assert!(!sse.done);
    // A whole answer has no head before its end.
    assert_eq!(app.chat(&ask("auto", "hello")).await.status, 502);
}

#[tokio::test]
async fn a_client_that_leaves_after_the_head_stops_the_attempt() {
    let (app, _upstream) = gateway(vec![Step::Silence]).await;
    let response = app.send("/v1/chat/completions", &ask_streaming("auto", "hello")).await;
    app.until_in_flight("slow", 1).await;
    drop(response);
    app.until_in_flight("slow", 0).await;
    let outcome = eventually(|| async { app.records().pop() }).await.outcome;
    assert_eq!(format!("{outcome:?}"), "Cancelled");
}
