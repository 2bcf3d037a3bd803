//! One answer on its way to the gateway: its events, from what the supervisor reports.
//!
//! What the engine has said so far lies in a `watch` cell per answer, so a slow client delays nobody and holds at most its
//! own answer in memory.

use std::sync::Arc;
use std::time::Duration;

use async_stream::try_stream;
use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::command::CancelOnDrop;
use super::progress::Progress;
use crate::backends::backend::{BackendError, ErrorKind, Event, EventStream};
use crate::backends::llama::wire::logprobs::{self, TokenLogprobs};
use crate::backends::llama::wire::outcome::Counts;
use crate::backends::llama::wire::piece::Piece;
use crate::openai::chat::{CompletionTokensDetails, PromptTokensDetails};
use crate::openai::{RankedToken, TokenLogprob, Usage};

/// How much of an answer has been passed on.
#[derive(Clone, Copy, Default)]
struct Told {
    pieces: usize,
    logprobs: usize,
    confidences: usize,
}

/// One answer on its way.
pub(super) struct Answer {
    pub(super) model: Arc<str>,
    pub(super) progress: watch::Receiver<Progress>,
    /// The answer is vectors.
    pub(super) embeds: bool,
    pub(super) first_token_timeout: Duration,
    pub(super) cancel: CancelOnDrop,
}

impl Answer {
    pub(super) fn events(mut self) -> EventStream {
        let model = Arc::clone(&self.model);
        let deadline = Instant::now() + self.first_token_timeout;
        let mut told = Told::default();
        let mut started = false;
        let embeds = self.embeds;
        let events = try_stream! {
            loop {
                let news = self.next(told, deadline).await?;
                if news.admitted && !started {
                    started = true;
                    yield Event::Started;
                    if news.dropped_turns > 0 {
                        yield Event::Truncated { turns: news.dropped_turns };
                    }
                }
                if !news.confidences.is_empty() {
                    told.confidences += news.confidences.len();
                    yield Event::Confidence(news.confidences);
                }
                if !news.logprobs.is_empty() {
                    told.logprobs += news.logprobs.len();
                    yield Event::Logprobs(for_client(news.logprobs));
                }
                told.pieces += news.pieces.len();
                for piece in joined(news.pieces) {
                    yield event(piece);
                }
                if let Some(end) = news.end {
                    self.cancel.disarm();
                    let (reason, counts) = end?;
                    if embeds {
                        yield Event::Embeddings(news.vectors);
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

    /// Waits for something that was not told yet.
    async fn next(&mut self, told: Told, deadline: Instant) -> Result<Progress, ErrorKind> {
        let silent = told.pieces == 0 && self.progress.borrow().vectors.is_empty();
        let changed = if silent {
            timeout_at(deadline, self.progress.changed())
                .await
                .map_err(|_| ErrorKind::Timeout { after: self.first_token_timeout })?
        } else {
            self.progress.changed().await
        };
        // The supervisor always leaves an end; without one it was dropped with everything it owned.
        changed.map_err(|_| ErrorKind::EngineDied)?;
        let progress = self.progress.borrow_and_update();
        Ok(Progress {
            admitted: progress.admitted,
            dropped_turns: progress.dropped_turns,
            // Vectors are of use only together.
            vectors: progress.end.as_ref().map_or_else(Vec::new, |_| progress.vectors.clone()),
            pieces: progress.pieces[told.pieces..].to_vec(),
            logprobs: progress.logprobs[told.logprobs..].to_vec(),
            confidences: progress.confidences[told.confidences..].to_vec(),
            end: progress.end.clone(),
        })
    }
}

/// Pieces that came together, in as few as say the same.
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

/// As clients see them.
fn for_client(tokens: Vec<TokenLogprobs>) -> Vec<TokenLogprob> {
    let ranked = |token: logprobs::TokenLogprob| RankedToken {
        token: String::from_utf8_lossy(&token.bytes).into_owned(),
        // JSON has no infinity; OpenAI writes −9999 for what has next to no probability.
        logprob: token.logprob.max(-9999.0),
        bytes: token.bytes,
    };
    let tokens = tokens.into_iter().map(|TokenLogprobs { chosen, top }| TokenLogprob {
        chosen: ranked(chosen),
        top_logprobs: top.into_iter().map(ranked).collect(),
    });
    tokens.collect()
}
