//! Client of the gateway under measurement: sends one question and waits until its energy is final.
//!
//! Treats local and cloud models alike. All recorded figures come from the gateway's own receipts.

use std::time::Duration;

use eventsource_stream::Eventsource;
use futures::StreamExt;
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use super::suite::Item;
use crate::net::{self, ClientOptions};
use crate::traffic::{Outcome, Record};

/// Gateway under measurement.
#[derive(Clone, Debug)]
pub struct Gateway {
    http: reqwest::Client,
    /// Base URL without a slash at the end.
    root: String,
}

/// Sampling of an answer.
#[derive(Clone, Copy, Debug)]
pub struct SamplingOptions {
    pub max_tokens: u32,
    /// 0 is greedy.
    pub temperature: f32,
    pub seed: u64,
    /// Request log-probabilities, which costs a little energy.
    pub logprobs: bool,
}

/// Answer to a question.
#[derive(Debug)]
pub struct Answer {
    pub text: String,
    pub mean_logprob: Option<f64>,
    /// Record of the gateway, with final energy.
    pub record: Box<Record>,
}

/// Why a request has no record.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("`{0}` is not the URL of a gateway")]
    Url(String),
    #[error("the gateway cannot be reached: {0}")]
    Http(#[from] reqwest::Error),
    #[error("the gateway refused the request with status {status}: {message}")]
    Refused { status: StatusCode, message: String },
    #[error("the gateway does not know its own request {0}")]
    Unrecorded(String),
    #[error("the energy of request {0} did not settle in {SETTLE_TIMEOUT:?}")]
    Unsettled(String),
    #[error("`{model}` did not become ready in {after:?}: {state}")]
    NotReady { model: String, after: Duration, state: String },
}

/// The gateway settles a receipt after 30 s at the latest.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(40);
const POLL_EVERY: Duration = Duration::from_millis(15);

impl Gateway {
    pub fn new(root: String) -> Result<Self, ClientError> {
        let url = Url::parse(&root).map_err(|_| ClientError::Url(root.clone()))?;
        Ok(Self { http: net::client(&url, ClientOptions::default())?, root })
    }

    pub(super) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Waits until `model` is ready.
    pub async fn until_ready(&self, model: &str, timeout: Duration) -> Result<(), ClientError> {
        let url = format!("{}/v1/models/{model}", self.root);
        let mut state = String::new();
        let ready = async {
            loop {
                let card: Value = self.http.get(&url).send().await?.json().await?;
                if card["ready"] == true {
                    return Ok(());
                }
                let state_now = card["state"].as_str().unwrap_or("no key, or not reachable");
                state_now.clone_into(&mut state);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        match tokio::time::timeout(timeout, ready).await {
            Ok(done) => done,
            Err(_) => Err(ClientError::NotReady { model: model.to_owned(), after: timeout, state }),
        }
    }

    /// Returns the text of `/metrics`.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        Ok(self.http.get(format!("{}/metrics", self.root)).send().await?.text().await?)
    }

    /// Sends `item` to `model`. A failed answer is returned as well; its record has the error.
    pub async fn ask(
        &self,
        model: &str,
        item: &Item,
        sampling: SamplingOptions,
    ) -> Result<Answer, ClientError> {
        let body = json!({
            "model": model, "messages": item.messages, "stream": true,
            "max_tokens": sampling.max_tokens, "temperature": sampling.temperature,
            "seed": sampling.seed, "logprobs": sampling.logprobs,
        });
        self.send(&body).await
    }

    /// Makes `model` generate `tokens` tokens, as a load for calibration.
    pub async fn keep_busy(
        &self,
        model: &str,
        tokens: u32,
        local: bool,
    ) -> Result<Answer, ClientError> {
        let mut body = json!({
            "model": model, "stream": true, "max_tokens": tokens, "temperature": 1,
            "messages": [{"role": "user", "content": "Write a long story about a lighthouse."}],
        });
        if local {
            body["ignore_eos"] = json!(true);
        }
        self.send(&body).await
    }

    async fn send(&self, body: &Value) -> Result<Answer, ClientError> {
        let url = format!("{}/v1/chat/completions", self.root);
        let response = self.http.post(url).json(body).send().await?;
        let id = response.headers().get("x-wattgate-request-id");
        let Some(id) = id.and_then(|value| value.to_str().ok()).map(str::to_owned) else {
            let status = response.status();
            let body: Value = response.json().await.unwrap_or_default();
            let message = body["error"]["message"].as_str().unwrap_or_default().to_owned();
            return Err(ClientError::Refused { status, message });
        };
        let mut streamed = StreamedAnswer::default();
        if response.status() == StatusCode::OK {
            let mut events = response.bytes_stream().eventsource();
            while let Some(Ok(event)) = events.next().await {
                streamed.add(&event.data);
            }
        }
        let record = Box::new(self.settled(&id).await?);
        let StreamedAnswer { text, logprobs, tokens } = streamed;
        let mean_logprob = (tokens > 0).then(|| logprobs / f64::from(tokens));
        Ok(Answer { text, mean_logprob, record })
    }

    async fn settled(&self, id: &str) -> Result<Record, ClientError> {
        let url = format!("{}/v1/requests/{id}", self.root);
        let settling = async {
            loop {
                let response = self.http.get(&url).send().await?;
                if response.status() != StatusCode::OK {
                    return Err(ClientError::Unrecorded(id.to_owned()));
                }
                let record: Record = response.json().await?;
                if record.receipt.energy.is_none_or(|energy| energy.is_final) {
                    return Ok(record);
                }
                tokio::time::sleep(POLL_EVERY).await;
            }
        };
        match tokio::time::timeout(SETTLE_TIMEOUT, settling).await {
            Ok(record) => record,
            Err(_) => Err(ClientError::Unsettled(id.to_owned())),
        }
    }
}

impl Answer {
    /// Returns why the answer is incomplete; `None` if it is complete.
    pub fn error(&self) -> Option<String> {
        let record = &self.record;
        if record.outcome == Outcome::Answered {
            return None;
        }
        let attempt = record.receipt.attempts.last();
        let error = attempt.and_then(|attempt| attempt.error.clone());
        Some(error.unwrap_or_else(|| format!("{} ({})", record.outcome.label(), record.status)))
    }
}

/// Contents of a stream so far.
#[derive(Default)]
struct StreamedAnswer {
    text: String,
    logprobs: f64,
    tokens: u32,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    #[serde(default)]
    logprobs: Option<Logprobs>,
}

#[derive(Default, Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
}

#[derive(Deserialize)]
struct Logprobs {
    #[serde(default)]
    content: Option<Vec<TokenLogprob>>,
}

#[derive(Deserialize)]
struct TokenLogprob {
    logprob: f64,
}

impl StreamedAnswer {
    /// Adds the data of an event. Ignores anything but chunks (`[DONE]`, errors); the record has
    /// the error.
    fn add(&mut self, data: &str) {
        let Ok(chunk) = serde_json::from_str::<Chunk>(data) else { return };
        let Some(choice) = chunk.choices.into_iter().next() else { return };
        self.text.push_str(choice.delta.content.as_deref().unwrap_or_default());
        for token in choice.logprobs.and_then(|logprobs| logprobs.content).into_iter().flatten() {
            self.logprobs += token.logprob;
            self.tokens += 1;
        }
    }
}
