//! Asks an HTTP server at a steady pace from a thread of its own, so that the meter never waits for the network.
//!
//! Bounded in time and size; ends at once when dropped. Knows nothing of what the answers mean.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url, redirect};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};

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
    // reqwest is built without a TLS provider. Whoever comes second finds one installed, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut headers = HeaderMap::new();
    if let Some((name, value)) = question.secret.clone() {
        headers.insert(name, value);
    }
    let builder = Client::builder()
        .user_agent(concat!("wattgate/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .redirect(redirect::Policy::none());
    let plain = question.url.scheme() == "http";
    let loopback = matches!(question.url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    // Without TLS no certificates are needed, and a small container may have none.
    let builder = if plain { builder.tls_certs_only([]) } else { builder };
    // A proxy for the outside world cannot reach this machine's own servers.
    if loopback { builder.no_proxy() } else { builder }.build()
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
