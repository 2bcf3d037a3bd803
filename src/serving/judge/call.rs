//! One question of the gateway's own to one of its models, its energy and price booked as overhead.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};

use super::answer_capture::upstream_text;
use super::prompts::{JudgeError, Schema};
use crate::backends::{Event, Job, Priority, Terms};
use crate::energy::cloud::estimate;
use crate::energy::{EnergyFigure, Source};
use crate::openai::{ChatRequest, Message, Request, Usage};
use crate::serving::gateway::Gateway;
use crate::serving::models::model::{Kind, Model};

/// What is asked.
pub(super) struct Prompt {
    body: Value,
    /// The same again gives the same; where nothing is lost by it.
    reproducible: bool,
}

impl Prompt {
    /// The conversation as the client asked it.
    pub(super) fn of_client(messages: &[Message], output_limit: Option<u32>) -> Self {
        let mut body = json!({"messages": messages});
        if let Some(limit) = output_limit {
            body["max_completion_tokens"] = limit.into();
        }
        Self { body, reproducible: false }
    }

    /// A question whose answer has the form of `schema`.
    pub(super) fn for_verdict(prompt: &[Message], schema: Schema, tokens: u32) -> Self {
        // The schema is ours and is JSON.
        let form: Value = serde_json::from_str(schema.schema).unwrap_or_default();
        let body = json!({
            "messages": prompt,
            "max_completion_tokens": tokens,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": schema.name, "strict": true, "schema": form},
            },
        });
        Self { body, reproducible: true }
    }

    fn job(mut self, gateway: &Gateway, model: &Model) -> Option<Job> {
        self.body["model"] = Value::from(&*model.name);
        // Some upstreams' models take no temperature; greedy is a matter for local ones.
        if self.reproducible && matches!(model.kind, Kind::Local { .. }) {
            self.body["temperature"] = 0.into();
        }
        let body = serde_json::to_vec(&self.body).ok()?;
        let request: ChatRequest = serde_json::from_slice(&body).ok()?;
        Some(Job {
            attempt: gateway.next_attempt(),
            request: Arc::new(Request::Chat(request)),
            body: Bytes::from(body),
            terms: Terms { priority: Priority::Low, deadline: None },
        })
    }
}

/// The whole text of the answer. Dropping the future stops the work; what it took until then is booked all the same.
pub(super) async fn call(
    gateway: &Gateway,
    model: &Model,
    prompt: Prompt,
) -> Result<String, JudgeError> {
    let job = prompt.job(gateway, model).ok_or(JudgeError::Failed)?;
    let mut bill = Bill { gateway, model, usage: None, reported: None, ran: false };
    if let Kind::Local { .. } = model.kind {
        gateway.receipts.expect_overhead(job.attempt, model.labels());
    }
    let mut events = model.backend.start(job);
    let mut text = String::new();
    while let Some(event) = events.next().await {
        match event.map_err(|_| JudgeError::Failed)? {
            Event::Started => bill.ran = true,
            Event::Text(piece) => text.push_str(&piece),
            Event::Upstream(answer) => {
                text = upstream_text(answer.get()).ok_or(JudgeError::Failed)?;
            }
            Event::Usage(usage) => bill.usage = Some(usage),
            Event::Energy(figure) => bill.reported = Some(figure),
            _ => {}
        }
    }
    Ok(text)
}

/// What an answer elsewhere took, booked when it ends, however it ends. Local energy is the meter's.
struct Bill<'g> {
    gateway: &'g Gateway,
    model: &'g Model,
    usage: Option<Usage>,
    reported: Option<EnergyFigure>,
    ran: bool,
}

impl Drop for Bill<'_> {
    fn drop(&mut self) {
        let Kind::Cloud(config) = &self.model.kind else { return };
        if !self.ran {
            return;
        }
        let figure = self.reported.unwrap_or_else(|| match self.usage {
            Some(usage) => estimate(
                config.per_token(),
                usage.prompt_tokens,
                usage.cached_tokens(),
                usage.completion_tokens,
            ),
            None => EnergyFigure::unknown(Source::CloudTable),
        });
        let (labels, metrics) = (self.model.labels(), &self.gateway.metrics);
        self.gateway.receipts.count_overhead(&labels, figure);
        if let Some(dollars) = self.usage.and_then(|usage| config.dollars(&usage)) {
            metrics.cost_dollars_total.get_or_create(&labels).inc_by(dollars.0);
            metrics.overhead_cost_dollars_total.get_or_create(&labels).inc_by(dollars.0);
        }
    }
}
