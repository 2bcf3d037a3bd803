//! An answer as server-sent events: chunks go out as they come, the receipt rides on the last one.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use serde::Deserialize;

use super::error::ApiError;
use super::formats::completions;
use super::reply::{completion_id, with_receipt};
use crate::backends::Event;
use crate::openai::{
    ChatChunk, ChoiceLogprobs, ChunkChoice, Delta, FinishReason, Role, ToolCallDelta, Usage,
};
use crate::serving::execution::Execution;
use crate::traffic::Receipt;

/// A comment keeps proxies from closing a stream whose model thinks for long.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Streams an opened execution.
pub fn streamed(execution: Execution, headers: HeaderMap) -> Response {
    let events = Sse::new(events(execution)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    (headers, events).into_response()
}

fn events(mut execution: Execution) -> impl Stream<Item = Result<SseEvent, Infallible>> {
    async_stream::stream! {
        let mut chunks = Chunks::of(&execution);
        loop {
            match execution.next().await {
                Some(Ok(event)) => {
                    let done = matches!(event, Event::Done(_));
                    if let Some(chunk) = chunks.next(event) {
                        yield Ok(SseEvent::default().data(chunk));
                    }
                    if done {
                        break;
                    }
                }
                Some(Err(error)) => {
                    yield Ok(fail(execution, &ApiError::from(error)));
                    return;
                }
                None => {
                    yield Ok(fail(execution, &ApiError::INTERNAL));
                    return;
                }
            }
        }
        // Billed before the last chunk leaves: a client that has seen it finds the request in the books.
        let receipt = execution.answered();
        for chunk in chunks.last(&receipt) {
            yield Ok(SseEvent::default().data(chunk));
        }
        if let Ok(energy) = serde_json::to_string(&energy_comment(&receipt)) {
            yield Ok(SseEvent::default().comment(format!("energy {energy}")));
        }
        yield Ok(SseEvent::default().data("[DONE]"));
    }
}

/// After the first byte the status is gone, so a failure is an event of the stream and `[DONE]` never comes.
fn fail(execution: Execution, error: &ApiError) -> SseEvent {
    let receipt = execution.failed(error.status().as_u16());
    let envelope = serde_json::to_string(&error.envelope()).unwrap_or_default();
    SseEvent::default().data(with_receipt(&envelope, &receipt).unwrap_or(envelope))
}

/// The body of the `: energy` comment, with the field names of the one such format in use (Neuralwatt's).
fn energy_comment(receipt: &Receipt) -> serde_json::Value {
    let figure = receipt.energy;
    let joules = figure.and_then(|figure| figure.joules).map(|joules| joules.0);
    serde_json::json!({
        "energy_joules": joules,
        "energy_kwh": joules.map(|joules| joules / 3.6e6),
        "attribution_method": figure.map(|figure| figure.source.label()),
        "quality": figure.map(|figure| figure.quality.label()),
        "final": figure.is_some_and(|figure| figure.is_final),
    })
}

/// Turns events into the text of chunks, holding back what must carry the receipt.
struct Chunks {
    id: String,
    created: u64,
    model: String,
    /// The client asked for a usage chunk.
    wants_usage: bool,
    /// Index of the choice that events belong to just now.
    choice: u32,
    /// Choices whose opening chunk with the role has gone out.
    opened: Vec<u32>,
    /// Of the tokens of the next text.
    logprobs: Option<ChoiceLogprobs>,
    usage: Option<Usage>,
    /// The upstream's chunks from the one that has a finish reason on.
    held: Vec<String>,
    finish: Option<FinishReason>,
    /// Writes the chunks of a local model's raw completion; absent for chat.
    completion: Option<completions::Writer>,
}

impl Chunks {
    fn of(execution: &Execution) -> Self {
        Self {
            id: completion_id(execution.id()),
            created: execution.created(),
            model: execution.model().name.to_string(),
            wants_usage: execution.request().wants_stream_usage(),
            choice: 0,
            opened: Vec::new(),
            logprobs: None,
            usage: None,
            held: Vec::new(),
            finish: None,
            completion: completions::Writer::of(execution),
        }
    }

    /// The chunk to send for `event`, if there is one.
    fn next(&mut self, event: Event) -> Option<String> {
        match event {
            // Embeddings are never streamed.
            Event::Started
            | Event::Confidence(_)
            | Event::Truncated { .. }
            | Event::Embeddings(_)
            | Event::Energy(_) => None,
            Event::Text(text) => {
                if self.completion.is_some() {
                    return self.raw(&text, None);
                }
                Some(self.add(Delta { content: Some(&text), ..Delta::default() }))
            }
            Event::Reasoning(text) => {
                Some(self.add(Delta { reasoning_content: Some(&text), ..Delta::default() }))
            }
            Event::ToolCall { index, id, name } => {
                Some(self.add(Delta::call(ToolCallDelta::begun(index, &id, &name))))
            }
            Event::ToolArguments { index, piece } => {
                Some(self.add(Delta::call(ToolCallDelta::continued(index, &piece))))
            }
            Event::Logprobs(content) => {
                self.logprobs = Some(ChoiceLogprobs { content, refusal: None });
                None
            }
            Event::Choice(index) => {
                self.choice = index;
                None
            }
            Event::ChoiceDone(finish) => {
                if self.completion.is_some() {
                    return self.raw("", Some(finish));
                }
                let role = self.role();
                Some(self.chunk(Delta { role, ..Delta::default() }, Some(finish)))
            }
            Event::Upstream(chunk) => {
                let text = chunk.get().to_owned();
                if self.held.is_empty() && !has_finish_reason(&text) {
                    return Some(text);
                }
                self.held.push(text);
                None
            }
            Event::Usage(usage) => {
                self.usage = Some(usage);
                None
            }
            Event::Done(finish) => {
                self.finish = Some(finish);
                None
            }
        }
    }

    /// A chunk of the answer; the first one says whose it is.
    fn add(&mut self, delta: Delta<'_>) -> String {
        let role = self.role();
        self.chunk(Delta { role, ..delta }, None)
    }

    /// The closing chunks; the last of them carries the receipt.
    fn last(mut self, receipt: &Receipt) -> Vec<String> {
        let mut closing = std::mem::take(&mut self.held);
        if closing.is_empty() {
            let end = self.raw("", self.finish).unwrap_or_else(|| {
                let role = self.role();
                self.chunk(Delta { role, ..Delta::default() }, self.finish)
            });
            closing.push(end);
        }
        if let (true, Some(usage)) = (self.wants_usage, self.usage) {
            closing.push(self.usage_chunk(usage));
        }
        if let Some(last) = closing.last_mut()
            && let Ok(with) = with_receipt(last, receipt)
        {
            *last = with;
        }
        closing
    }

    /// A chunk of a local model's raw completion; none for chat.
    fn raw(&mut self, text: &str, finish: Option<FinishReason>) -> Option<String> {
        let logprobs = self.logprobs.take();
        let logprobs = logprobs.as_ref().map(|told| told.content.as_slice());
        let piece = completions::Piece { index: self.choice, text, logprobs, finish };
        self.completion.as_mut().map(|writer| writer.chunk(&piece))
    }

    /// The role, for the first chunk of each choice.
    fn role(&mut self) -> Option<Role> {
        if self.opened.contains(&self.choice) {
            return None;
        }
        self.opened.push(self.choice);
        Some(Role::Assistant)
    }

    fn chunk(&mut self, delta: Delta<'_>, finish_reason: Option<FinishReason>) -> String {
        let logprobs = self.logprobs.take();
        let choice = ChunkChoice { index: self.choice, delta, logprobs, finish_reason };
        self.render(vec![choice], None)
    }

    fn usage_chunk(&self, usage: Usage) -> String {
        match &self.completion {
            Some(writer) => writer.usage(usage),
            None => self.render(vec![], Some(usage)),
        }
    }

    fn render(&self, choices: Vec<ChunkChoice<'_>>, usage: Option<Usage>) -> String {
        let chunk = ChatChunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            choices,
            usage,
        };
        // Strings and numbers only: this cannot fail, and an empty chunk is harmless if it ever does.
        serde_json::to_string(&chunk).unwrap_or_default()
    }
}

/// Whether any choice of an upstream's chunk has ended.
fn has_finish_reason(chunk: &str) -> bool {
    #[derive(Deserialize)]
    struct Shape {
        #[serde(default)]
        choices: Vec<Choice>,
    }
    #[derive(Deserialize)]
    struct Choice {
        #[serde(default)]
        finish_reason: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_str::<Shape>(chunk)
        .is_ok_and(|shape| shape.choices.iter().any(|choice| choice.finish_reason.is_some()))
}
