//! Connections that waste their place are closed, and none outlives a stop.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use wattgate::traffic::Outcome;

use crate::rig::app::{PATIENCE, TestApp, ask, ask_streaming, cloud_model_at};
use crate::rig::unruly_upstream::{Step, UnrulyUpstream};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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

/// A connection with the smallest receive buffer.
async fn connect(app: &TestApp) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(app.address).await.unwrap()
}

async fn send(app: &TestApp, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(app).await;
    stream.write_all(bytes).await.unwrap();
    stream
}

/// An HTTP/1.1 request for a stream.
fn request() -> Vec<u8> {
    let body = ask_streaming("cloud", "hello").to_string();
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The same request by HTTP/2 (RFC 9113), from a client that takes no byte of a reply: its window
/// is 0 (`SETTINGS_INITIAL_WINDOW_SIZE`, 4).
fn request_without_window() -> Vec<u8> {
    const SETTINGS: u8 = 4;
    const HEADERS: u8 = 1;
    const DATA: u8 = 0;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    let path = b"/v1/chat/completions";
    // HPACK (RFC 7541): `:method POST`, `:scheme http`, then `:path` and `:authority` as literals.
    let length = u8::try_from(path.len()).unwrap();
    let head = [&[0x83, 0x86, 0x04, length], &path[..], &[0x01, 1, b'x']].concat();
    [
        PREFACE,
        &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]),
        &frame(HEADERS, END_HEADERS, 1, &head),
        &frame(DATA, END_STREAM, 1, ask_streaming("cloud", "hello").to_string().as_bytes()),
    ]
    .concat()
}

/// Waits until the gateway has closed the connection.
async fn until_closed(mut stream: TcpStream) {
    let closed = async {
        let mut buffer = [0; 4096];
        while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
    };
    timeout(PATIENCE, closed).await.expect("the connection is closed");
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
