//! An OpenAI upstream on loopback for tests: answers predictably, fails on demand, records its
//! requests.
//!
//! Real HTTP, no model. Dropping it ends the listener and every connection.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::{Stream, StreamExt, stream};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Timeout of a wait for an event that happens at once; only a failing test reaches it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Given back by an upstream with each answer; a gateway must pass it on.
const FINGERPRINT: &str = "fp_mock";

const JSON: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/json");

/// How a request is answered. A prompt that begins with `play ` and a word from [`Mode::named`]
/// overrides the mode set, so that requests that succeed and requests that fail can run at the same
/// time.
#[derive(Clone, Debug)]
pub enum Mode {
    /// A correct answer, `reply_to` the prompt, streamed or not as asked.
    Answer,
    /// The answer in this map, or an echo.
    Know(HashMap<String, String>),
    /// The answer of this function to the request, or an echo.
    Judge(fn(&Value) -> Option<String>),
    /// A correct answer in single bytes, so that characters and events are split.
    TinyWrites,
    /// A correct answer with a pause before each chunk.
    SlowChunks(Duration),
    /// An OpenAI error with this status, its message quoting the `Authorization` it got.
    Status(u16),
    /// 429 with this `Retry-After`.
    RateLimited(&'static str),
    /// Any response: status, content type, body.
    Verbatim(u16, &'static str, &'static str),
    /// No answer at all.
    HangBeforeHeaders,
    /// The first half of an answer, then silence.
    HangMidAnswer,
    /// The first half of an answer, then the connection is cut.
    CutMidAnswer,
    /// The first half of a streamed answer, then OpenAI's error object. For streamed requests.
    ErrorMidStream,
}

impl Mode {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "401" => Self::Status(401),
            "429" => Self::RateLimited("7"),
            "500" => Self::Status(500),
            "garbage" => Self::Verbatim(200, "application/json", "\u{1}not json"),
            "html" => Self::Verbatim(200, "text/html", "<html><body>Welcome!</body></html>"),
            "hang" => Self::HangBeforeHeaders,
            "hang-mid" => Self::HangMidAnswer,
            "cut-mid" => Self::CutMidAnswer,
            "error-mid" => Self::ErrorMidStream,
            "slow" => Self::SlowChunks(Duration::from_millis(20)),
            _ => return None,
        })
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Value,
    /// The body's own bytes.
    pub raw: String,
}

pub struct MockUpstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    // Dropping it ends the listener and every connection.
    _tasks: JoinSet<()>,
}

struct Shared {
    mode: Mutex<Mode>,
    received: Mutex<Vec<Received>>,
    /// Requests that are neither answered completely nor cancelled.
    open: watch::Sender<usize>,
}

impl MockUpstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Answer),
            received: Mutex::default(),
            open: watch::Sender::new(0),
        });
        let app = Router::new()
            .route("/v1/chat/completions", post(complete))
            .route("/v1/completions", post(complete))
            .route("/v1/embeddings", post(complete))
            .with_state(Arc::clone(&shared));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, app));
        Self { address, shared, _tasks: tasks }
    }

    /// For a model's `base_url`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// How requests are treated from now on.
    pub fn respond_with(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// Every request so far, in order of arrival.
    pub fn requests(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// Waits until exactly `count` requests are open; a disconnect closes the client's request.
    pub async fn until_open(&self, count: usize) {
        let mut open = self.shared.open.subscribe();
        let reached = open.wait_for(|&now| now == count);
        tokio::time::timeout(PATIENCE, reached).await.expect("requests end in time").unwrap();
    }

    /// Text of a correct answer to `prompt`; not ASCII, so that bytes can split characters.
    pub fn reply_to(prompt: &str) -> String {
        format!("Grüße ☁ you said: {prompt}")
    }
}

async fn accept(listener: TcpListener, app: Router) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((socket, _)) = listener.accept() => {
                connections.spawn(serve(socket, app.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(socket: TcpStream, app: Router) {
    socket.set_nodelay(true).unwrap();
    // A connection cut on purpose or by the client does not fail the test.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(app))
        .await;
}

/// Counts a request as open until it is dropped.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.open.send_modify(|open| *open += 1);
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

async fn complete(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    raw: String,
) -> Response {
    let open = Open::new(&shared);
    let body: Value = serde_json::from_str(&raw).unwrap_or_default();
    let prompt = body["messages"]
        .as_array()
        .and_then(|turns| turns.last())
        .map_or(body["prompt"].as_str(), |turn| turn["content"].as_str())
        .unwrap_or_default();
    let mode = prompt
        .strip_prefix("play ")
        .and_then(|rest| Mode::named(rest.split_whitespace().next()?))
        .unwrap_or_else(|| shared.mode.lock().unwrap().clone());
    let reply = match &mode {
        Mode::Know(answers) => answers.get(prompt).cloned(),
        Mode::Judge(judge) => judge(&body),
        _ => None,
    };
    let reply = reply.unwrap_or_else(|| MockUpstream::reply_to(prompt));
    let answer = Answer::to(&body, prompt, &reply);
    let key = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or("none");
    let error = error_body(&format!("Refused; you sent {key}"));
    shared.received.lock().unwrap().push(Received {
        path: uri.path().to_owned(),
        headers,
        body,
        raw,
    });
    match mode {
        Mode::Answer | Mode::Know(_) | Mode::Judge(_) => {
            answer.respond(open, Ending::Whole, Duration::ZERO)
        }
        Mode::TinyWrites => answer.in_bytes().respond(open, Ending::Whole, Duration::ZERO),
        Mode::SlowChunks(pause) => answer.respond(open, Ending::Whole, pause),
        Mode::Status(status) => {
            (StatusCode::from_u16(status).unwrap(), [JSON], error).into_response()
        }
        Mode::RateLimited(after) => {
            let headers = [JSON, (header::RETRY_AFTER, after)];
            (StatusCode::TOO_MANY_REQUESTS, headers, error).into_response()
        }
        Mode::Verbatim(status, kind, body) => {
            (StatusCode::from_u16(status).unwrap(), [(header::CONTENT_TYPE, kind)], body)
                .into_response()
        }
        Mode::HangBeforeHeaders => {
            let _open = open;
            std::future::pending().await
        }
        Mode::HangMidAnswer => answer.respond(open, Ending::Silence, Duration::ZERO),
        Mode::CutMidAnswer => answer.respond(open, Ending::Cut, Duration::ZERO),
        Mode::ErrorMidStream => {
            let error = Bytes::from(format!("data: {error}\n\n"));
            answer.respond(open, Ending::Say(error), Duration::ZERO)
        }
    }
}

fn error_body(message: &str) -> String {
    json!({"error": {"message": message, "type": "server_error", "param": null, "code": null}})
        .to_string()
}

/// End of an answer's body; all but `Whole` come after its first half.
enum Ending {
    Whole,
    Silence,
    Cut,
    Say(Bytes),
}

/// A correct answer in the pieces in which it is written.
struct Answer {
    content_type: &'static str,
    pieces: Vec<Bytes>,
}

impl Answer {
    fn to(request: &Value, prompt: &str, reply: &str) -> Self {
        let words: Vec<&str> = reply.split_inclusive(' ').collect();
        let prompt_tokens = prompt.split_whitespace().count();
        let usage = json!({
            "prompt_tokens": prompt_tokens,
            "completion_tokens": words.len(),
            "total_tokens": prompt_tokens + words.len(),
            "prompt_tokens_details": {"cached_tokens": 0},
        });
        if request["stream"] == true {
            let wants_usage = request["stream_options"]["include_usage"] == true;
            let pieces = events(request, &words, wants_usage.then_some(usage));
            return Self { content_type: "text/event-stream; charset=utf-8", pieces };
        }
        let whole = if request["input"].is_null() {
            json!({
                "id": "chatcmpl-mock", "object": object(request), "created": 1_700_000_000,
                "model": request["model"], "system_fingerprint": FINGERPRINT,
                "choices": [choice(request, reply, Some("stop"))], "usage": usage,
            })
        } else {
            json!({
                "object": "list", "model": request["model"],
                "data": [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}],
                "usage": {"prompt_tokens": 5, "total_tokens": 5},
            })
        }
        .to_string();
        let (start, end) = whole.as_bytes().split_at(whole.len() / 2);
        let pieces = [start, end].map(Bytes::copy_from_slice).to_vec();
        Self { content_type: "application/json", pieces }
    }

    fn in_bytes(self) -> Self {
        let bytes = self.pieces.iter().flatten().map(|&byte| Bytes::copy_from_slice(&[byte]));
        Self { pieces: bytes.collect(), ..self }
    }

    fn respond(mut self, open: Open, ending: Ending, pause: Duration) -> Response {
        let (whole, silent) = (matches!(ending, Ending::Whole), matches!(ending, Ending::Silence));
        if !whole {
            self.pieces.truncate(self.pieces.len() / 2);
        }
        let last: Option<Result<Bytes, &str>> = match ending {
            Ending::Whole | Ending::Silence => None,
            Ending::Cut => Some(Err("cut on purpose")),
            Ending::Say(bytes) => Some(Ok(bytes)),
        };
        let body = stream::iter(self.pieces)
            .then(move |piece| async move {
                if pause.is_zero() {
                    // Lets the connection write each piece separately.
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(pause).await;
                }
                Ok(piece)
            })
            .chain(stream::iter(last))
            .chain(if silent {
                stream::pending().left_stream()
            } else {
                stream::empty().right_stream()
            });
        let body = Body::from_stream(held(body, open));
        ([(header::CONTENT_TYPE, self.content_type)], body).into_response()
    }
}

/// The same stream, holding `open` until it has ended or is dropped.
fn held<T>(body: impl Stream<Item = T>, open: Open) -> impl Stream<Item = T> {
    body.map(move |item| {
        let _ = &open;
        item
    })
}

/// The `object` field of a whole answer or of a chunk.
fn object(request: &Value) -> &'static str {
    match (request["prompt"].is_null(), request["stream"] == true) {
        (false, _) => "text_completion",
        (true, true) => "chat.completion.chunk",
        (true, false) => "chat.completion",
    }
}

/// A choice in the format of the request: raw text, a delta or a message.
fn choice(request: &Value, text: &str, finish: Option<&str>) -> Value {
    let mut choice = json!({"index": 0, "finish_reason": finish});
    if !request["prompt"].is_null() {
        choice["text"] = json!(text);
    } else if request["stream"] == true {
        choice["delta"] = json!({"role": "assistant", "content": text});
    } else {
        choice["message"] = json!({"role": "assistant", "content": text});
    }
    choice
}

/// An opening chunk, a chunk a word, the finish reason, the usage if asked for, `[DONE]`.
fn events(request: &Value, words: &[&str], usage: Option<Value>) -> Vec<Bytes> {
    let chunk = |choices: Value| {
        json!({
            "id": "chatcmpl-mock", "object": object(request), "created": 1_700_000_000,
            "model": request["model"], "system_fingerprint": FINGERPRINT, "choices": choices,
        })
    };
    let delta = |text: &str, finish: Option<&str>| chunk(json!([choice(request, text, finish)]));
    let mut chunks = vec![delta("", None)];
    chunks.extend(words.iter().map(|word| delta(word, None)));
    chunks.push(delta("", Some("stop")));
    if let Some(usage) = usage {
        let mut last = chunk(json!([]));
        last["usage"] = usage;
        chunks.push(last);
    }
    chunks
        .iter()
        .map(Value::to_string)
        .chain(["[DONE]".to_owned()])
        .map(|data| Bytes::from(format!("data: {data}\n\n")))
        .collect()
}
