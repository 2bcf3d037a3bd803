//! An upstream on loopback that writes what a test tells it to, byte for byte, and misbehaves as
//! servers do: silence, endless heartbeats, cut connections.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The pause between two heartbeats.
const BEAT: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub enum Step {
    Say(String),
    Wait(Duration),
    /// Nothing more, and the connection stays open.
    Silence,
    /// This again and again, and the connection stays open.
    Repeat(&'static str),
    /// The next request may come by this connection.
    Next,
    /// The connection is closed; also at the end of a script.
    Close,
}

/// The steps of a streamed answer; chunks are of choice 0.
impl Step {
    /// The head; the end of the connection ends the body.
    pub fn head() -> Self {
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        Self::Say(head.to_owned())
    }

    /// One event.
    pub fn data(data: impl Display) -> Self {
        Self::Say(format!("data: {data}\n\n"))
    }

    pub fn chunk(delta: &Value, finish: &Value) -> Self {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        Self::data(json!({"id": "c", "choices": [choice]}))
    }

    pub fn text(text: &str) -> Self {
        Self::chunk(&json!({"content": text}), &Value::Null)
    }

    /// The chunk that many servers begin with.
    pub fn role() -> Self {
        Self::chunk(&json!({"role": "assistant", "content": ""}), &Value::Null)
    }

    pub fn finish() -> Self {
        Self::chunk(&json!({}), &json!("stop"))
    }

    pub fn error(message: &str, code: u16) -> Self {
        Self::data(json!({"error": {"message": message, "code": code}}))
    }

    pub fn done() -> Self {
        Self::data("[DONE]")
    }
}

pub struct UnrulyUpstream {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl UnrulyUpstream {
    /// Answers the first request by the first script, and so on; the last one serves all others.
    pub async fn start(scripts: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&requests);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let scripts = Arc::new(scripts);
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, Arc::clone(&scripts), Arc::clone(&seen)));
            }
        });
        Self { address, requests, _tasks: tasks }
    }

    /// A stream of these events, its headers before them; `then` is how it ends.
    pub async fn streaming(events: &[&str], then: Step) -> Self {
        Self::start(vec![stream_of("text/event-stream", events, then)]).await
    }

    /// For a model's `base_url`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Config of a cloud model named `m`, with more keys.
    pub fn model(&self, more: &str) -> String {
        format!(
            "[models.m]\nability = 3.0\n[models.m.openai]\nbase_url = \"{}\"\n\
             dollars_per_million_input_tokens = 1.0\ndollars_per_million_output_tokens = 10.0\n{more}\n",
            self.base_url()
        )
    }

    /// The bodies of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Close-delimited, each event written by itself. An event that is no JSON and has a line end is
/// written as it is.
pub fn stream_of(content_type: &str, events: &[&str], then: Step) -> Vec<Step> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n\r\n");
    let events = events.iter().map(|event| {
        Step::Say(if event.ends_with('\n') {
            (*event).to_owned()
        } else {
            format!("data: {event}\n\n")
        })
    });
    std::iter::once(Step::Say(head)).chain(events).chain([then]).collect()
}

/// A whole response after which the connection stays open.
pub fn whole(status: u16, headers: &str, body: &str) -> Step {
    let length = body.len();
    Step::Say(format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\n\r\n{body}"))
}

async fn serve(
    mut socket: TcpStream,
    scripts: Arc<Vec<Vec<Step>>>,
    requests: Arc<Mutex<Vec<String>>>,
) {
    while let Some(body) = read_request(&mut socket).await {
        let number = {
            let mut requests = requests.lock().unwrap();
            requests.push(body);
            requests.len() - 1
        };
        let script = scripts.get(number).or(scripts.last()).cloned().unwrap_or_default();
        if !play(&mut socket, script).await {
            return;
        }
    }
}

/// False if the connection is to be closed.
async fn play(socket: &mut TcpStream, script: Vec<Step>) -> bool {
    for step in script {
        match step {
            Step::Say(text) => {
                if socket.write_all(text.as_bytes()).await.is_err() {
                    return false;
                }
                // So that each step arrives by itself.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Step::Wait(time) => tokio::time::sleep(time).await,
            Step::Silence => std::future::pending().await,
            Step::Repeat(text) => {
                while socket.write_all(text.as_bytes()).await.is_ok() {
                    tokio::time::sleep(BEAT).await;
                }
                return false;
            }
            Step::Next => return true,
            Step::Close => return false,
        }
    }
    false
}

/// The body of the next request; `None` if the client has closed the connection.
pub(super) async fn read_request(socket: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                return Some(body.to_owned());
            }
        }
        if socket.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
}
