//! Connections that waste their place are closed, and none outlives a stop.

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;
use wattgate::traffic::Outcome;

use crate::rig::app::{TestApp, ask, ask_streaming, cloud_model_at};
use crate::rig::raw_http::h2::PREFACE;
use crate::rig::raw_http::{h2, post, sent, until_closed};
use crate::rig::unruly_upstream::{Step, UnrulyUpstream};

/// Far more than all buffers between an upstream and a client hold.
const FLOOD_EVENTS: usize = 6_000;

/// A gateway with one cloud model, `cloud`, and short limits.
async fn gateway(steps: Vec<Step>) -> (TestApp, UnrulyUpstream) {
    let upstream = UnrulyUpstream::start(vec![steps]).await;
    let config = cloud_model_at("cloud", 1.0, &upstream.base_url());
    let app = TestApp::start_with(&config, |config| {
        config.server.idle_timeout_ms = 300;
        config.server.write_timeout_ms = 400;
        config.server.shutdown_grace_ms = 300;
    });
    (app.await, upstream)
}

/// An answer that no client can leave in its buffers.
fn flood() -> Vec<Step> {
    let Step::Say(event) = Step::text(&"word ".repeat(800)) else { unreachable!() };
    vec![Step::head(), Step::Say(event.repeat(FLOOD_EVENTS))]
}

/// An answer that begins and never ends.
fn endless() -> Vec<Step> {
    vec![Step::head(), Step::text("Hi"), Step::Silence]
}

async fn send(app: &TestApp, bytes: &[u8]) -> TcpStream {
    sent(app.address, bytes).await
}

/// An HTTP/1.1 request for a stream.
fn request() -> Vec<u8> {
    post("/v1/chat/completions", "", &ask_streaming("cloud", "hello"))
}

/// The same request by HTTP/2, from a client that takes no byte of a reply.
fn request_without_window() -> Vec<u8> {
    let body = ask_streaming("cloud", "hello").to_string();
    [h2::start_without_window(), h2::post(1, "/v1/chat/completions", &body)].concat()
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_after_the_idle_timeout() {
    let (app, _upstream) = gateway(endless()).await;
    let partial: [&[u8]; 6] = [
        b"",
        b"GET /heal",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-half",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PRI * HT",
        PREFACE,
    ];
    for bytes in partial {
        let stream = send(&app, bytes).await;
        until_closed(stream).await;
    }
    // An answer that a model thinks about is not idle.
    let asking = app.send("/v1/chat/completions", &ask_streaming("cloud", "hello")).await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    app.until_in_flight("cloud", 1).await;
    drop(asking);
}

#[tokio::test]
async fn a_client_that_does_not_read_frees_its_place() {
    for bytes in [request(), request_without_window()] {
        let (app, _upstream) = gateway(flood()).await;
        let stream = send(&app, &bytes).await;
        app.until_in_flight("cloud", 1).await;
        app.until_in_flight("cloud", 0).await;
        assert_eq!(app.until_logged(1).await[0].outcome, Outcome::Cancelled);
        drop(stream);
    }
}

#[tokio::test]
async fn no_client_outlives_a_stop() {
    let half_a_body =
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{";
    let clients: [(&[u8], Vec<Step>); 7] = [
        (b"", endless()),
        (b"GET /healthz HTTP/1.1\r\nhost: x", endless()),
        (half_a_body, endless()),
        (PREFACE, endless()),
        (&request(), endless()),
        (&request(), flood()),
        (&request_without_window(), flood()),
    ];
    for (bytes, steps) in clients {
        let (app, _upstream) = gateway(steps).await;
        let stream = send(&app, bytes).await;
        if bytes.len() > PREFACE.len() && bytes.ends_with(b"}") {
            app.until_in_flight("cloud", 1).await;
        }
        timeout(Duration::from_secs(5), app.stop()).await.expect("the gateway stops in time");
        drop(stream);
    }
}

#[tokio::test]
async fn a_request_that_waits_for_a_silent_upstream_is_cut_off_and_recorded_at_a_stop() {
    let (app, _upstream) = gateway(vec![Step::Silence]).await;
    let url = app.url("/v1/chat/completions");
    let body = json!(ask("cloud", "hello"));
    let asking = crate::rig::app::client().post(url).json(&body).send();
    let stopping = async {
        app.until_in_flight("cloud", 1).await;
        timeout(Duration::from_secs(5), app.stop()).await.expect("the gateway stops in time")
    };
    let (reply, records) = tokio::join!(asking, stopping);
    assert!(reply.is_err(), "the connection was cut");
    assert_eq!((records.len(), records[0].outcome), (1, Outcome::Cancelled));
}
