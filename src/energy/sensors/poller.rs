//! Asks an HTTP server at a steady pace from a thread of its own, so that the meter never waits for the network.
//!
//! Bounded in time and size; ends at once when dropped. Knows nothing of what the answers mean.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::net::{self, ClientOptions};
use crate::units::MonotonicNs;

/// Most bytes of an answer that holds one figure.
const MAX_BYTES: usize = 64 << 10;

/// What to ask, and how often.
#[derive(Clone, Debug)]
pub struct Question {
    pub url: Url,
    /// A header with a secret, and what it holds; never shown.
    pub secret: Option<(HeaderName, HeaderValue)>,
    pub every: Duration,
    pub timeout: Duration,
}

impl Question {
    /// A bearer token, from the variable that holds it.
    pub fn bearer(variable: &str) -> Option<(HeaderName, HeaderValue)> {
        let mut value =
            HeaderValue::from_str(&format!("Bearer {}", std::env::var(variable).ok()?)).ok()?;
        value.set_sensitive(true);
        Some((AUTHORIZATION, value))
    }
}

/// A running poller.
#[derive(Debug)]
pub struct Poller {
    /// Dropped to stop the thread.
    running: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Poller {
    /// Asks now, and again and again. `deliver` gets each answer with the time between question and answer, or why
    /// there was none.
    pub fn start(
        question: Question,
        mut deliver: impl FnMut(MonotonicNs, Result<Vec<u8>, String>) + Send + 'static,
    ) -> io::Result<Self> {
        let (running, mut stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = client(&question).map_err(io::Error::other)?;
        let asking = async move {
            let mut beat = interval(question.every);
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = &mut stopped => break,
                    _ = beat.tick() => {}
                }
                let asked = MonotonicNs::now();
                let answer = tokio::select! {
                    _ = &mut stopped => break,
                    answer = timeout(question.timeout, ask(&client, &question)) => answer,
                };
                let late = |_| Err(format!("no answer in {} ms", question.timeout.as_millis()));
                // The figure was true somewhere between question and answer.
                let middle = MonotonicNs(asked.0 + (MonotonicNs::now() - asked) / 2);
                deliver(middle, answer.unwrap_or_else(late));
            }
        };
        let thread = thread::Builder::new()
            .name("energy-remote".to_owned())
            .spawn(move || runtime.block_on(asking))?;
        Ok(Self { running: Some(running), thread: Some(thread) })
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that asks for remote figures panicked");
        }
    }
}

fn client(question: &Question) -> reqwest::Result<Client> {
    let mut headers = HeaderMap::new();
    if let Some((name, value)) = question.secret.clone() {
        headers.insert(name, value);
    }
    net::client(&question.url, ClientOptions { headers, ..ClientOptions::default() })
}

async fn ask(client: &Client, question: &Question) -> Result<Vec<u8>, String> {
    // Errors of the client name the address, which may hold what is nobody's business.
    let broken = |error: reqwest::Error| match error.without_url() {
        error if error.is_connect() => "cannot be reached".to_owned(),
        error => error.to_string(),
    };
    let mut response = client.get(question.url.clone()).send().await.map_err(broken)?;
    if !response.status().is_success() {
        return Err(format!("answers with HTTP status {}", response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(broken)? {
        if body.len() + piece.len() > MAX_BYTES {
            return Err(format!("answers with more than {MAX_BYTES} bytes"));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;

    /// The first answer of a server that says `says` to whoever comes, and then nothing more.
    fn first_answer(says: &[u8], timeout_ms: u64) -> Result<Vec<u8>, String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/figure", listener.local_addr().unwrap()).parse().unwrap();
        let (told, answers) = mpsc::channel();
        let timeout = Duration::from_millis(timeout_ms);
        let question = Question { url, secret: None, every: Duration::from_secs(1), timeout };
        let deliver = move |_, answer| drop(told.send(answer));
        let poller = Poller::start(question, deliver).unwrap();
        let (mut client, _) = listener.accept().unwrap();
        let _asked = client.read(&mut [0; 4096]).unwrap();
        // A client that has heard enough hangs up.
        let _written = client.write_all(says);
        let answer = answers.recv_timeout(Duration::from_mins(1)).unwrap();
        drop(poller);
        answer
    }

    #[test]
    fn what_is_no_whole_answer_in_time_is_a_reason_and_no_figure() {
        assert_eq!(
            first_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n42", 60_000).unwrap(),
            b"42"
        );
        for silent in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n4"] {
            assert_eq!(first_answer(silent, 150).unwrap_err(), "no answer in 150 ms");
        }
        let status = |line: &str| {
            first_answer(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").as_bytes(), 60_000)
        };
        assert_eq!(status("401 No").unwrap_err(), "answers with HTTP status 401");
        // A redirect could lead the token elsewhere.
        assert_eq!(
            status("302 Found\r\nLocation: http://127.0.0.1:1/").unwrap_err(),
            "answers with HTTP status 302"
        );
        let mut endless = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n".to_vec();
        endless.resize(70_000, b'4');
        assert!(first_answer(&endless, 60_000).unwrap_err().contains("more than"));
        assert!(first_answer(b"SSH-2.0-OpenSSH\r\n", 60_000).is_err());
    }

    #[test]
    fn it_ends_at_once_though_an_answer_is_long_in_coming() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let hour = Duration::from_hours(1);
        let question = Question { url, secret: None, every: hour, timeout: hour };
        let poller = Poller::start(question, |_, _| ()).unwrap();
        let _asked = listener.accept().unwrap();
        drop(poller);
    }
}
