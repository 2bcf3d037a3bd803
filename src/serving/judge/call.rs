//! One question of the gateway's own to one of its models, its energy and price booked as overhead.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};

use super::answer_capture::upstream_text;
use super::prompts::{JudgeError, Schema};
use crate::backends::{Event, Job, Priority, SchedulingOptions};
use crate::locality::Locality;
use crate::openai::{ChatRequest, Message, Request};
use crate::routing::{Features, Route};
use crate::serving::attempt_state::output_pieces;
use crate::serving::gateway::Gateway;
use crate::serving::models::deployment::{Deployment, MeteredBy};
use crate::serving::models::model::Model;
use crate::serving::pricing::Spent;
use crate::serving::remote_metering::RemoteMetering;
use crate::telemetry::metrics::ModelLabels;

/// Body of one call.
pub(super) struct JudgePrompt {
    body: Value,
    /// The same again gives the same; where nothing is lost by it.
    reproducible: bool,
}

impl JudgePrompt {
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

    fn job(mut self, gateway: &Gateway, model: &Model, route: Route) -> Option<Job> {
        self.body["model"] = Value::from(&*model.name);
        // Some upstreams' models take no temperature; greedy is a matter for local ones.
        if self.reproducible && route == Route::Local {
            self.body["temperature"] = 0.into();
        }
        let body = serde_json::to_vec(&self.body).ok()?;
        let request: ChatRequest = serde_json::from_slice(&body).ok()?;
        Some(Job {
            attempt: gateway.next_attempt(),
            request: Arc::new(Request::Chat(request)),
            body: Bytes::from(body),
            terms: SchedulingOptions { priority: Priority::Low, ..SchedulingOptions::default() },
        })
    }
}

/// The whole text of the answer of a deployment within `reach`. Dropping the future cancels the
/// work; what it took until then is booked.
pub(super) async fn call(
    gateway: &Gateway,
    model: &Model,
    prompt: JudgePrompt,
    reach: Locality,
) -> Result<String, JudgeError> {
    let deployment = model.to_try(reach).into_iter().next().ok_or(JudgeError::LocalOnly)?;
    let job = prompt.job(gateway, model, deployment.route()).ok_or(JudgeError::Failed)?;
    let mut bill = Bill::open(gateway, model, &deployment, &job);
    let mut events = deployment.backend.start(job);
    let mut text = String::new();
    while let Some(event) = events.next().await {
        let event = event.map_err(|_| JudgeError::Failed)?;
        bill.observe(&event);
        match event {
            Event::Text(piece) => text.push_str(&piece),
            Event::UpstreamAnswer(answer) => {
                text = upstream_text(&answer).ok_or(JudgeError::Failed)?;
            }
            _ => {}
        }
    }
    Ok(text)
}

/// Overhead of one call, booked when it ends, however it ends. Energy that the meter settles is
/// booked by the store.
struct Bill<'g> {
    gateway: &'g Gateway,
    deployment: &'g Deployment,
    labels: ModelLabels,
    spent: Spent,
    ran: bool,
    remote: Option<RemoteMetering>,
}

impl<'g> Bill<'g> {
    fn open(gateway: &'g Gateway, model: &Model, deployment: &'g Deployment, job: &Job) -> Self {
        let features = Features::of(&job.request);
        let (meter, prompt_tokens) = (&gateway.router.meter, features.prompt_tokens);
        if deployment.metered_by != MeteredBy::Table {
            gateway.receipts.expect_overhead(job.attempt, model.labels());
        }
        let remote = (deployment.metered_by == MeteredBy::Remote)
            .then(|| RemoteMetering::open(meter, &model.name, job.attempt, prompt_tokens));
        let spent = Spent { prompt_tokens: prompt_tokens.into(), ..Spent::default() };
        Self { gateway, deployment, labels: model.labels(), spent, ran: false, remote }
    }

    fn observe(&mut self, event: &Event) {
        match event {
            Event::Started => self.ran = true,
            Event::Usage(usage) => self.spent.usage = Some(*usage),
            Event::Energy(figure) => self.spent.reported = Some(*figure),
            _ => {}
        }
        let pieces = output_pieces(event);
        self.spent.output_events += u64::from(pieces);
        if let Some(remote) = &mut self.remote {
            remote.pieces(pieces);
        }
    }
}

impl Drop for Bill<'_> {
    fn drop(&mut self) {
        let (billing, labels) = (self.deployment.billing(), &self.labels);
        if let Some(remote) = self.remote.take() {
            remote.close(self.spent.usage.map(|usage| usage.generated_tokens()));
        } else if let Some(figure) = billing.actual_energy(&self.spent).filter(|_| self.ran) {
            self.gateway.receipts.count_overhead(labels, figure);
        }
        let dollars = billing.actual_dollars(&self.spent).filter(|_| self.ran);
        if let (Route::Cloud, Some(dollars)) = (self.deployment.route(), dollars) {
            let metrics = &self.gateway.metrics;
            metrics.cost_dollars_total.get_or_create(labels).inc_by(dollars.0);
            metrics.overhead_cost_dollars_total.get_or_create(labels).inc_by(dollars.0);
        }
    }
}
