//! An upstream on loopback that plays one script to every request, byte for byte and pause by
//! pause.
//!
//! Raw TCP, so that it can say what no server library would.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The head of a streamed answer; the end of the connection ends its body.
pub(super) const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                           connection: close\r\n\r\n";

#[derive(Clone, Debug)]
pub enum Step {
    /// The head of a streamed answer.
    Head,
    /// One event with this data.
    Data(String),
    /// Bytes as they are.
    Raw(Vec<u8>),
    Wait(Duration),
    /// Nothing more, and the connection stays open.
    Hang,
}

impl Step {
    pub fn data(text: &str) -> Self {
        Self::Data(text.to_owned())
    }

    /// A chunk of choice 0 with this text.
    pub fn text(text: &str) -> Self {
        let delta = serde_json::json!({"content": text});
        Self::chunk(&delta, &serde_json::Value::Null)
    }

    /// A chunk of choice 0.
    pub fn chunk(delta: &serde_json::Value, finish: &serde_json::Value) -> Self {
        let choice = serde_json::json!({"index": 0, "delta": delta, "finish_reason": finish});
        Self::Data(serde_json::json!({"id": "c", "choices": [choice]}).to_string())
    }

    /// The chunk that many servers begin with.
    pub fn role() -> Self {
        let delta = serde_json::json!({"role": "assistant", "content": ""});
        Self::chunk(&delta, &serde_json::Value::Null)
    }

    /// The end of choice 0.
    pub fn finish() -> Self {
        Self::chunk(&serde_json::json!({}), &"stop".into())
    }

    pub fn error(message: &str, code: u16) -> Self {
        Self::Data(serde_json::json!({"error": {"message": message, "code": code}}).to_string())
    }

    pub fn done() -> Self {
        Self::data("[DONE]")
    }
}

pub struct ScriptedUpstream {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    // Dropping it ends the listener and every connection.
    _tasks: JoinSet<()>,
}

impl ScriptedUpstream {
    /// Plays `steps` to every request.
    pub async fn start(steps: Vec<Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, steps.into(), Arc::clone(&requests)));
        Self { address, requests, _tasks: tasks }
    }

    /// For a model's `base_url`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, steps: Arc<[Step]>, requests: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        connections.spawn(serve(stream, Arc::clone(&steps), Arc::clone(&requests)));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, steps: Arc<[Step]>, requests: Arc<AtomicUsize>) {
    if read_request(&mut stream).await.is_none() {
        return;
    }
    requests.fetch_add(1, Ordering::SeqCst);
    for step in &*steps {
        let bytes = match step {
            Step::Head => STREAM_HEAD.into(),
            Step::Data(data) => format!("data: {data}\n\n").into_bytes(),
            Step::Raw(bytes) => bytes.clone(),
            Step::Wait(time) => {
                tokio::time::sleep(*time).await;
                continue;
            }
            Step::Hang => std::future::pending().await,
        };
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
}

/// Reads a request to the end of its body. `None` if the connection ends before.
pub(super) async fn read_request(stream: &mut TcpStream) -> Option<()> {
    let (mut request, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
        request.extend_from_slice(&piece[..count]);
        let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        if request.len() >= end + 4 + length {
            return Some(());
        }
    }
}
