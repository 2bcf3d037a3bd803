//! The response stream of one choice: backend events from the supervisor's.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use async_stream::try_stream;
use futures::StreamExt;
use tokio::time::{Instant, timeout_at};

use super::attempt_event::{AttemptEvent, End, EventReceiver, Output};
use super::command::CancelOnDrop;
use crate::backends::backend::{BackendError, ErrorKind, Event, EventStream};
use crate::backends::llama::wire::logprobs::{self, TokenLogprobs};
use crate::backends::llama::wire::outcome::Counts;
use crate::backends::llama::wire::piece::Piece;
use crate::openai::chat::{CompletionTokensDetails, PromptTokensDetails};
use crate::openai::{RankedToken, TokenLogprob, Usage};

/// Maximum events taken from the channel at once: more than a step brings.
const BATCH_MAX: usize = 64;

/// A response that has been submitted.
pub(super) struct Response {
    pub(super) model: Arc<str>,
    pub(super) events: EventReceiver,
    /// Events that were taken from the channel and not read yet.
    pub(super) received: Vec<AttemptEvent>,
    /// Log-probabilities are requested.
    pub(super) logprobs: bool,
    /// The response is vectors.
    pub(super) embeds: bool,
    pub(super) first_token_timeout: Duration,
    pub(super) _cancel: CancelOnDrop,
}

/// Events that arrived together.
#[derive(Default)]
struct Batch {
    admitted: Option<u32>,
    output: Output,
    vectors: Vec<Vec<f32>>,
    end: Option<End>,
}

/// Waits until the engine has checked every choice: a prompt that it refuses must not end an answer
/// of which the client has seen a part.
pub(super) async fn accepted(mut responses: Vec<Response>) -> Result<Vec<Response>, BackendError> {
    let deadline =
        Instant::now() + responses.first().map_or(Duration::ZERO, |r| r.first_token_timeout);
    for response in &mut responses {
        response.accepted(deadline).await.map_err(|kind| response.error(kind))?;
    }
    Ok(responses)
}

impl Response {
    fn error(&self, kind: ErrorKind) -> BackendError {
        BackendError { model: Arc::clone(&self.model), kind }
    }

    async fn accepted(&mut self, deadline: Instant) -> Result<(), ErrorKind> {
        self.received = self.receive(Some(deadline)).await?;
        for event in &self.received {
            if let AttemptEvent::End(Err(kind)) = event {
                return Err(kind.clone());
            }
        }
        Ok(())
    }

    pub(super) fn events(mut self) -> EventStream {
        let model = Arc::clone(&self.model);
        let deadline = Instant::now() + self.first_token_timeout;
        let events = try_stream! {
            let mut vectors = Vec::new();
            let mut has_logprobs = !self.logprobs;
            let mut awaits_first = true;
            loop {
                let mut batch = self.next(awaits_first.then_some(deadline)).await?;
                if let Some(dropped_turns) = batch.admitted {
                    yield Event::Started;
                    if dropped_turns > 0 {
                        yield Event::Truncated { turns: dropped_turns };
                    }
                }
                awaits_first &= batch.output.pieces.is_empty() && batch.vectors.is_empty();
                vectors.append(&mut batch.vectors);
                let Output { pieces, logprobs, confidences } = batch.output;
                if !confidences.is_empty() {
                    yield Event::Confidence(confidences);
                }
                if !logprobs.is_empty() {
                    has_logprobs = true;
                    yield Event::Logprobs(for_client(logprobs));
                }
                for piece in joined(pieces) {
                    yield event(piece);
                }
                if let Some(end) = batch.end {
                    let (reason, counts) = end?;
                    if !has_logprobs {
                        // An empty answer has those of no token, which is not the same as none.
                        yield Event::Logprobs(Vec::new());
                    }
                    if self.embeds {
                        yield Event::Embeddings(vectors);
                    }
                    yield Event::Usage(usage(counts));
                    yield Event::Done(reason);
                    return;
                }
            }
        };
        events
            .map(move |event| {
                event.map_err(|kind| BackendError { model: Arc::clone(&model), kind })
            })
            .boxed()
    }

    /// Waits for events; takes all that have arrived.
    async fn receive(&mut self, deadline: Option<Instant>) -> Result<Vec<AttemptEvent>, ErrorKind> {
        let mut received = Vec::new();
        let receiving = self.events.recv_many(&mut received, BATCH_MAX);
        match deadline {
            Some(deadline) => timeout_at(deadline, receiving)
                .await
                .map_err(|_| ErrorKind::Timeout { after: self.first_token_timeout })?,
            None => receiving.await,
        };
        // The supervisor always sends an end, unless it is dropped itself or the engine overran.
        if received.is_empty() {
            return Err(ErrorKind::EngineDied);
        }
        Ok(received)
    }

    async fn next(&mut self, deadline: Option<Instant>) -> Result<Batch, ErrorKind> {
        let received = match mem::take(&mut self.received) {
            none if none.is_empty() => self.receive(deadline).await?,
            received => received,
        };
        let mut batch = Batch::default();
        for event in received {
            match event {
                AttemptEvent::Accepted => {}
                AttemptEvent::Admitted { dropped_turns } => batch.admitted = Some(dropped_turns),
                AttemptEvent::Output(output) => batch.output.append(output),
                AttemptEvent::Vector(vector) => batch.vectors.push(vector),
                AttemptEvent::End(end) => batch.end = Some(end),
            }
        }
        Ok(batch)
    }
}

/// Pieces merged where they are of the same kind.
fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::with_capacity(1);
    for piece in pieces {
        let left = match joined.last_mut() {
            Some(last) => last.join(piece),
            None => Some(piece),
        };
        joined.extend(left);
    }
    joined
}

fn event(piece: Piece) -> Event {
    match piece {
        Piece::Text(text) => Event::Text(text),
        Piece::Reasoning(text) => Event::Reasoning(text),
        Piece::Call { index, name } => {
            let id = format!("call_{}", uuid::Uuid::now_v7().simple());
            Event::ToolCall { index, id, name }
        }
        Piece::Arguments { index, text } => Event::ToolArguments { index, piece: text },
    }
}

fn usage(counts: Counts) -> Usage {
    let (prompt_tokens, completion_tokens) =
        (u64::from(counts.prompt_tokens), u64::from(counts.completion_tokens));
    Usage {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens + completion_tokens,
        prompt_tokens_details: Some(PromptTokensDetails {
            cached_tokens: Some(u64::from(counts.cached_tokens)),
        }),
        completion_tokens_details: Some(CompletionTokensDetails {
            reasoning_tokens: Some(u64::from(counts.reasoning_tokens)),
        }),
    }
}

/// Log-probabilities in the format of the API.
fn for_client(tokens: Vec<TokenLogprobs>) -> Vec<TokenLogprob> {
    let ranked = |token: logprobs::TokenLogprob| RankedToken {
        token: String::from_utf8_lossy(&token.bytes).into_owned(),
        // JSON has no infinity; OpenAI uses −9999 for negligible probability.
        logprob: token.logprob.max(-9999.0),
        bytes: token.bytes,
    };
    let tokens = tokens.into_iter().map(|TokenLogprobs { chosen, top }| TokenLogprob {
        chosen: ranked(chosen),
        top_logprobs: top.into_iter().map(ranked).collect(),
    });
    tokens.collect()
}
