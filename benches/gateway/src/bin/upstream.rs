//! Mock of an OpenAI-compatible upstream: `upstream 127.0.0.1:PORT`, a thread per connection.
//!
//! Answers `POST …/chat/completions` with a fixed answer, whole or in chunks; `POST
//! /settings?latency_ms=20&chunks=32&interval_ms=5` changes how. With an interval of 0 all chunks
//! leave in one write.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gateway_bench::Reader;

const ANSWER: &str = r#"{"id":"chatcmpl-mock","object":"chat.completion","created":1700000000,"model":"mock","choices":[{"index":0,"message":{"role":"assistant","content":"The mock upstream says hello."},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":200,"completion_tokens":8,"total_tokens":208},"system_fingerprint":"fp_mock"}"#;

/// The part that is the same in every chunk.
const CHUNK: &str = r#"{"id":"chatcmpl-mock","object":"chat.completion.chunk","created":1700000000,"model":"mock","choices":["#;

const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";

#[derive(Default)]
struct Settings {
    latency_ms: AtomicU64,
    chunks: AtomicU64,
    interval_ms: AtomicU64,
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9100".to_owned());
    let listener = TcpListener::bind(&address)?;
    let settings = Arc::new(Settings { chunks: AtomicU64::new(32), ..Settings::default() });
    for connection in listener.incoming() {
        let (connection, settings) = (connection?, Arc::clone(&settings));
        connection.set_nodelay(true)?;
        // A gateway that closes its connections is no fault of the mock.
        thread::Builder::new().stack_size(256 << 10).spawn(move || serve(connection, &settings))?;
    }
    Ok(())
}

fn serve(connection: TcpStream, settings: &Settings) -> io::Result<()> {
    let mut reader = Reader::new(connection);
    let mut body = Vec::new();
    while let Some(head) = reader.head()? {
        body.clear();
        reader.body(&head, |piece| body.extend_from_slice(piece))?;
        let path = head.word();
        if let Some((_, query)) = path.split_once("/settings?") {
            settings.change(query);
            reader.socket().write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
        } else if path.ends_with("/chat/completions") {
            wait(settings.latency_ms.load(Ordering::Relaxed));
            let streams = contains(&body, br#""stream":true"#);
            let usage = contains(&body, br#""include_usage":true"#);
            if streams {
                stream(&mut reader, settings, usage)?
            } else {
                whole(&mut reader, "200 OK", ANSWER)?
            }
        } else {
            whole(&mut reader, "404 Not Found", r#"{"error":{"message":"unknown path"}}"#)?;
        }
    }
    Ok(())
}

impl Settings {
    fn change(&self, query: &str) {
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let setting = match name {
                "latency_ms" => &self.latency_ms,
                "chunks" => &self.chunks,
                "interval_ms" => &self.interval_ms,
                _ => continue,
            };
            setting.store(value.parse().unwrap_or(0), Ordering::Relaxed);
        }
    }
}

fn whole(reader: &mut Reader, status: &str, json: &str) -> io::Result<()> {
    let length = json.len();
    let response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{json}"
    );
    reader.socket().write_all(response.as_bytes())
}

fn stream(reader: &mut Reader, settings: &Settings, usage: bool) -> io::Result<()> {
    let chunks = settings.chunks.load(Ordering::Relaxed);
    let interval = Duration::from_millis(settings.interval_ms.load(Ordering::Relaxed));
    let mut out = STREAM_HEAD.to_owned();
    event(
        &mut out,
        &format!(
            r#"{CHUNK}{{"index":0,"delta":{{"role":"assistant","content":""}},"finish_reason":null}}]}}"#
        ),
    );
    let mut due = Instant::now();
    for number in 0..chunks {
        if number > 0 && !interval.is_zero() {
            reader.socket().write_all(out.as_bytes())?;
            out.clear();
            due += interval;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        event(
            &mut out,
            &format!(
                r#"{CHUNK}{{"index":0,"delta":{{"content":" token"}},"finish_reason":null}}]}}"#
            ),
        );
    }
    event(&mut out, &format!(r#"{CHUNK}{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}"#));
    if usage {
        let counts = r#"{"prompt_tokens":200,"completion_tokens":32,"total_tokens":232}"#;
        event(&mut out, &format!(r#"{CHUNK}],"usage":{counts}}}"#));
    }
    event(&mut out, "[DONE]");
    out.push_str("0\r\n\r\n");
    reader.socket().write_all(out.as_bytes())
}

/// An event in a chunk of its own.
fn event(out: &mut String, data: &str) {
    let size = "data: \n\n".len() + data.len();
    out.push_str(&format!("{size:x}\r\ndata: {data}\n\n\r\n"));
}

fn wait(latency_ms: u64) {
    if latency_ms > 0 {
        thread::sleep(Duration::from_millis(latency_ms));
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
