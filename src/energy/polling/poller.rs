//! A task that requests one figure from an HTTP server at a fixed interval, so that the meter never
//! waits for the network.
//!
//! Every request has a deadline and a size limit. The meaning of the response is left to the
//! receiver.

use std::fmt;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::net::{self, ClientOptions};
use crate::units::MonotonicNs;

/// Largest response that holds one figure.
const BODY_MAX_BYTES: usize = 64 << 10;

/// A server to poll, and how often.
#[derive(Clone, Debug)]
pub struct PollTarget {
    pub url: Url,
    /// Name and value of a header with a secret; the value must be marked as sensitive.
    pub secret: Option<(HeaderName, HeaderValue)>,
    pub every: Duration,
    /// Deadline of each request, with its response.
    pub timeout: Duration,
}

impl PollTarget {
    /// The header of a bearer token in an environment variable.
    pub fn bearer(variable: &str) -> Option<(HeaderName, HeaderValue)> {
        let mut value =
            HeaderValue::from_str(&format!("Bearer {}", std::env::var(variable).ok()?)).ok()?;
        value.set_sensitive(true);
        Some((AUTHORIZATION, value))
    }
}

/// The body of a response, or why there is none.
pub type Polled = Result<Vec<u8>, String>;

/// A poll task that does not run yet.
pub struct Poller {
    target: PollTarget,
    client: Client,
    deliver: Box<dyn FnMut(MonotonicNs, Polled) + Send + Sync>,
}

impl Poller {
    /// `deliver` receives each result with the middle of the time between request and response.
    pub fn new(
        target: PollTarget,
        deliver: impl FnMut(MonotonicNs, Polled) + Send + Sync + 'static,
    ) -> reqwest::Result<Self> {
        let client = client(&target)?;
        Ok(Self { target, client, deliver: Box::new(deliver) })
    }

    /// Polls at once and then at the interval until `stop` is cancelled, which also ends a request
    /// in progress.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled_owned(self.poll()).await;
    }

    async fn poll(mut self) {
        let mut ticker = interval(self.target.every);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let deadline = self.target.timeout;
        loop {
            ticker.tick().await;
            let sent = MonotonicNs::now();
            let body = timeout(deadline, get(&self.client, &self.target.url)).await;
            let late = |_| Err(format!("no answer in {} ms", deadline.as_millis()));
            // The figure was read somewhere between request and response.
            let middle = MonotonicNs(sent.0 + (MonotonicNs::now() - sent) / 2);
            (self.deliver)(middle, body.unwrap_or_else(late));
        }
    }
}

/// Without the client, whose headers hold the secret.
impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("target", &self.target).finish_non_exhaustive()
    }
}

fn client(target: &PollTarget) -> reqwest::Result<Client> {
    let mut headers = HeaderMap::new();
    if let Some((name, value)) = target.secret.clone() {
        headers.insert(name, value);
    }
    net::client(&target.url, ClientOptions { headers, ..ClientOptions::default() })
}

async fn get(client: &Client, url: &Url) -> Polled {
    // The URL in the client's errors may contain private parts.
    let broken = |error: reqwest::Error| match error.without_url() {
        error if error.is_connect() => "cannot be reached".to_owned(),
        error => error.to_string(),
    };
    let mut response = client.get(url.clone()).send().await.map_err(broken)?;
    if !response.status().is_success() {
        return Err(format!("answers with HTTP status {}", response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(broken)? {
        if body.len() + piece.len() > BODY_MAX_BYTES {
            return Err(format!("answers with more than {BODY_MAX_BYTES} bytes"));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    async fn listen() -> (TcpListener, Url) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/figure", listener.local_addr().unwrap()).parse().unwrap();
        (listener, url)
    }

    /// The first result of polling a server that sends `response` and keeps the connection open.
    async fn first_result(response: &[u8], timeout_ms: u64) -> Polled {
        let (listener, url) = listen().await;
        let (sender, mut results) = mpsc::unbounded_channel();
        let timeout = Duration::from_millis(timeout_ms);
        let target = PollTarget { url, secret: None, every: Duration::from_secs(1), timeout };
        let poller = Poller::new(target, move |_, result| drop(sender.send(result))).unwrap();
        let stop = CancellationToken::new();
        let server = async {
            let (mut client, _) = listener.accept().await.unwrap();
            let _request = client.read(&mut [0; 4096]).await.unwrap();
            // The client may close the connection before it has read everything.
            let _written = client.write_all(response).await;
            let result = results.recv().await.unwrap();
            stop.cancel();
            result
        };
        tokio::join!(server, poller.run(stop.clone())).0
    }

    #[tokio::test]
    async fn a_response_that_is_incomplete_late_or_not_a_success_is_an_error() {
        assert_eq!(
            first_result(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n42", 60_000).await.unwrap(),
            b"42"
        );
        for silent in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n4"] {
            assert_eq!(first_result(silent, 150).await.unwrap_err(), "no answer in 150 ms");
        }
        let status = async |line: &str| {
            let response = format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n");
            first_result(response.as_bytes(), 60_000).await
        };
        assert_eq!(status("401 No").await.unwrap_err(), "answers with HTTP status 401");
        // A redirect could lead the token elsewhere.
        assert_eq!(
            status("302 Found\r\nLocation: http://127.0.0.1:1/").await.unwrap_err(),
            "answers with HTTP status 302"
        );
        let mut endless = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n".to_vec();
        endless.resize(70_000, b'4');
        assert!(first_result(&endless, 60_000).await.unwrap_err().contains("more than"));
        assert!(first_result(b"SSH-2.0-OpenSSH\r\n", 60_000).await.is_err());
    }

    #[tokio::test]
    async fn cancelling_ends_a_poll_that_waits_for_its_response() {
        let (listener, url) = listen().await;
        let hour = Duration::from_hours(1);
        let target = PollTarget { url, secret: None, every: hour, timeout: hour };
        let poller = Poller::new(target, |_, _| ()).unwrap();
        let stop = CancellationToken::new();
        let server = async {
            let connection = listener.accept().await.unwrap();
            stop.cancel();
            connection
        };
        tokio::join!(server, poller.run(stop.clone()));
    }
}
