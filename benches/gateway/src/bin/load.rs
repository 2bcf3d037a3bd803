//! Load generator for one OpenAI-compatible endpoint on loopback, a thread per connection. Prints
//! one line of JSON.
//!
//! `load 127.0.0.1:PORT/PATH MODEL whole|stream CONNECTIONS SECONDS [RATE]`. With a rate, requests
//! are due at fixed times and latency counts from then, so that a server is charged for those that
//! queue behind a stall; without, each connection sends its next request when the last is answered.
//! The first second warms up and is not counted. Every conversation is another one.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gateway_bench::{Head, Reader};

const BODY_BYTES: usize = 1024;
const WARM_UP: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);

/// What all connections share.
struct Plan {
    address: SocketAddr,
    request: Vec<u8>,
    /// Where the ten digits are that make each conversation another one.
    number_at: usize,
    streams: bool,
    period: Option<Duration>,
    begin: Instant,
    end: Instant,
    next: AtomicU64,
}

#[derive(Default)]
struct Seen {
    answer_us: Vec<u64>,
    first_us: Vec<u64>,
    lines: u64,
    bad: u64,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some(plan) = plan(&words) else {
        eprintln!("usage: load 127.0.0.1:PORT/PATH MODEL whole|stream CONNECTIONS SECONDS [RATE]");
        return ExitCode::from(2);
    };
    let connections = words[3].parse().unwrap_or(1);
    let plan = Arc::new(plan);
    let spawn = |_| {
        let plan = Arc::clone(&plan);
        thread::spawn(move || work(&plan))
    };
    let threads: Vec<_> = (0..connections).map(spawn).collect();
    let mut all = Seen::default();
    for seen in threads.into_iter().filter_map(|thread| thread.join().ok()) {
        all.answer_us.extend(seen.answer_us);
        all.first_us.extend(seen.first_us);
        all.lines += seen.lines;
        all.bad += seen.bad;
    }
    let seconds = (plan.end - plan.begin).as_secs_f64();
    let (answer, first) = (spread(&mut all.answer_us), spread(&mut all.first_us));
    let (ok, lines, bad) = (all.answer_us.len(), all.lines, all.bad);
    println!(
        r#"{{"seconds":{seconds},"ok":{ok},"bad":{bad},"lines":{lines},"answer_us":{answer},"first_us":{first}}}"#
    );
    ExitCode::SUCCESS
}

fn plan(words: &[String]) -> Option<Plan> {
    let [target, model, kind, _, seconds, rest @ ..] = words else { return None };
    let (address, path) = target.split_once('/')?;
    let address: SocketAddr =
        address.parse().ok().filter(|address: &SocketAddr| address.ip().is_loopback())?;
    let streams = kind == "stream";
    let rate: Option<f64> = rest.first().and_then(|rate| rate.parse().ok());
    let (request, number_at) = request(&format!("/{path}"), address, model, streams);
    let begin = Instant::now() + WARM_UP;
    Some(Plan {
        address,
        request,
        number_at,
        streams,
        period: rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
        begin,
        end: begin + Duration::from_secs_f64(seconds.parse().ok()?),
        next: AtomicU64::new(0),
    })
}

fn request(path: &str, address: SocketAddr, model: &str, streams: bool) -> (Vec<u8>, usize) {
    const NUMBER: &str = "0000000000";
    let stream = if streams { r#","stream":true"# } else { "" };
    let body = |text: &str| {
        format!(
            r#"{{"model":"{model}","messages":[{{"role":"system","content":"You are a helpful assistant."}},{{"role":"user","content":"Question {NUMBER}: {text}"}}],"max_tokens":64,"temperature":0.2{stream}}}"#
        )
    };
    let words = "the quick brown fox jumps over the lazy dog ";
    let text: String = words.chars().cycle().take(BODY_BYTES - body("").len()).collect();
    let body = body(&text);
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nAccept: */*\r\nAuthorization: Bearer sk-bench\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let number_at = request.find(NUMBER).unwrap_or(0);
    (request.into_bytes(), number_at)
}

fn work(plan: &Plan) -> Seen {
    let mut seen = Seen::default();
    let mut request = plan.request.clone();
    let mut connection = None;
    loop {
        let number = plan.next.fetch_add(1, Ordering::Relaxed);
        let due = match plan.period {
            Some(period) => {
                plan.begin - WARM_UP + period * u32::try_from(number).unwrap_or(u32::MAX)
            }
            None => Instant::now(),
        };
        if due >= plan.end {
            return seen;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        request[plan.number_at..plan.number_at + 10]
            .copy_from_slice(format!("{number:010}").as_bytes());
        let answer = ask(plan, &mut connection, &request);
        let counts = due >= plan.begin && (plan.period.is_some() || Instant::now() <= plan.end);
        match answer {
            Ok(answer) if counts && answer.good => {
                seen.answer_us.push(micros(due.elapsed()));
                seen.first_us.extend(answer.first.map(|first| micros(first - due)));
                seen.lines += answer.lines;
            }
            Ok(answer) if answer.good => {}
            _ => {
                connection = None;
                seen.bad += 1;
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

struct Answer {
    good: bool,
    /// When the first text of a stream came.
    first: Option<Instant>,
    lines: u64,
}

fn ask(plan: &Plan, connection: &mut Option<Reader>, request: &[u8]) -> io::Result<Answer> {
    if connection.is_none() {
        let socket = TcpStream::connect(plan.address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        *connection = Some(Reader::new(socket));
    }
    let reader = connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
    reader.socket().write_all(request)?;
    let head: Head = reader.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut events = Events::default();
    reader.body(&head, |piece| {
        if plan.streams {
            events.feed(piece)
        }
    })?;
    let good = head.word() == "200" && (!plan.streams || events.done);
    Ok(Answer { good, first: events.first, lines: events.lines })
}

/// Reads the lines of an event stream, however they are cut.
#[derive(Default)]
struct Events {
    line: Vec<u8>,
    lines: u64,
    first: Option<Instant>,
    done: bool,
}

impl Events {
    fn feed(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.end_of_line();
            }
        }
    }

    fn end_of_line(&mut self) {
        let line = self.line.trim_ascii_end();
        if line.starts_with(b"data:") {
            self.lines += 1;
            self.done |= line == b"data: [DONE]";
            if self.first.is_none() && has_text(line) {
                self.first = Some(Instant::now());
            }
        }
        self.line.clear();
    }
}

fn has_text(line: &[u8]) -> bool {
    let mark = br#""content":""#;
    let at = line.windows(mark.len()).position(|window| window == mark);
    at.is_some_and(|at| line.get(at + mark.len()).is_some_and(|byte| *byte != b'"'))
}

fn spread(sample: &mut [u64]) -> String {
    sample.sort_unstable();
    let at = |share: usize| {
        sample.get(sample.len().saturating_sub(1) * share / 100).copied().unwrap_or(0)
    };
    format!(r#"{{"p50":{},"p99":{}}}"#, at(50), at(99))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
