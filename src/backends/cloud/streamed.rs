//! A streamed answer as it is read from an upstream: how long each silence may last, and how it
//! ends.

use std::time::Duration;

use async_stream::stream;
use bytes::{Bytes, BytesMut};
use futures::Stream;
use reqwest::header::CONTENT_TYPE;
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::{Asked, Transcript};
use super::patience::Patience;
use super::sniff::{self, Kind};
use super::transport::Response;
use crate::backends::backend::{ErrorKind, Event};

/// Most bytes of a whole answer that comes where a stream was asked for.
const WHOLE_BYTES_MAX: usize = 32 << 20;

/// Most bytes before the kind of a body is known.
const SNIFFED_BYTES_MAX: usize = 64 << 10;

/// How long to wait for the end of a body after `[DONE]`: a connection read to its end can be used
/// again.
const END_OF_BODY_WAIT: Duration = Duration::from_millis(20);

/// How long to wait for the usage, or for `[DONE]`, once every choice has ended.
const USAGE_WAIT: Duration = Duration::from_secs(2);

/// The events of a streamed answer.
pub(super) fn streamed(
    response: Response,
    asked: Asked,
    patience: Patience,
) -> impl Stream<Item = Result<Event, ErrorKind>> {
    stream! {
        let mut reader = Reader::new(response, asked, patience);
        let mut started = false;
        let ended = loop {
            let step = reader.step().await;
            // Only now: an error in place of an answer is none.
            if step.is_ok() && !std::mem::replace(&mut started, true) {
                yield Ok(Event::Started);
            }
            if let Some(chunks) = reader.transcript.forward() {
                yield Ok(Event::UpstreamChunks(chunks));
            }
            match step {
                Ok(Step::More) => {}
                Ok(Step::End) => break None,
                Err(error) => break Some(error),
            }
        };
        let usage = reader.transcript.usage();
        match reader.finish(ended) {
            Ok(events) => for event in events {
                yield Ok(event);
            },
            Err(error) => {
                // What was used until then is owed.
                if let Some(usage) = usage {
                    yield Ok(Event::Usage(usage));
                }
                yield Err(error);
            }
        }
    }
}

enum Step {
    More,
    End,
}

struct Reader {
    response: Response,
    transcript: Transcript,
    patience: Patience,
    kind: Option<Kind>,
    /// Once every choice has ended: one deadline, which no heartbeat puts off.
    ends_by: Option<Instant>,
}

impl Reader {
    fn new(response: Response, asked: Asked, patience: Patience) -> Self {
        let transcript = Transcript::new(asked);
        Self { response, transcript, patience, kind: None, ends_by: None }
    }

    /// Reads what comes next.
    async fn step(&mut self) -> Result<Step, ErrorKind> {
        if self.kind.is_none() {
            self.kind = Some(self.sniff().await?);
        }
        match self.kind {
            Some(Kind::Other) => Err(self.misfit()),
            Some(Kind::Json) => {
                let body = self.whole().await?;
                self.transcript.feed_whole(&body)?;
                Ok(Step::End)
            }
            Some(Kind::Events) | None => self.event().await,
        }
    }

    async fn event(&mut self) -> Result<Step, ErrorKind> {
        let Some(piece) = self.piece().await? else { return Ok(Step::End) };
        self.transcript.feed(&piece)?;
        if self.transcript.is_done() {
            let _ = timeout(END_OF_BODY_WAIT, self.response.piece()).await;
            return Ok(Step::End);
        }
        if self.transcript.is_complete() && self.ends_by.is_none() {
            self.ends_by = Some(Instant::now() + self.patience.between.min(USAGE_WAIT));
        }
        Ok(Step::More)
    }

    /// The next piece; `None` at the end, which an upstream may forget to send, or to send well,
    /// once everything has been said.
    async fn piece(&mut self) -> Result<Option<Bytes>, ErrorKind> {
        if let Some(deadline) = self.ends_by {
            let piece = timeout_at(deadline, self.response.piece()).await;
            return Ok(piece.ok().and_then(Result::ok).flatten());
        }
        let begun = self.transcript.has_begun();
        let after = if begun { self.patience.between } else { self.patience.first };
        let piece = timeout(after, self.response.piece()).await;
        piece.map_err(|_| ErrorKind::Timeout { after })?
    }

    /// Looks at the beginning, which is read again afterwards.
    async fn sniff(&mut self) -> Result<Kind, ErrorKind> {
        let is_labelled = matches!(self.label(), "event-stream" | "");
        let mut begun = BytesMut::new();
        let kind = loop {
            match self.piece().await? {
                Some(piece) => begun.extend_from_slice(&piece),
                None => break Kind::Events,
            }
            if let Some(kind) = sniff::kind(&begun, is_labelled) {
                break kind;
            }
            if begun.len() > SNIFFED_BYTES_MAX {
                break Kind::Other;
            }
        };
        self.response.put_back(begun.freeze());
        Ok(kind)
    }

    async fn whole(&mut self) -> Result<Bytes, ErrorKind> {
        let after = self.patience.whole;
        let body = timeout(after, self.response.rest(WHOLE_BYTES_MAX)).await;
        body.map_err(|_| ErrorKind::Timeout { after })?
    }

    /// The kind that the headers name; empty without one.
    fn label(&self) -> &'static str {
        let value = self.response.headers.get(CONTENT_TYPE);
        value.map_or("", |value| sniff::label(value.to_str().unwrap_or_default()))
    }

    fn misfit(&self) -> ErrorKind {
        ErrorKind::Protocol(format!("{} instead of an event stream", self.label()))
    }

    /// What follows the chunks. Once every choice has ended, no error can undo the answer.
    fn finish(self, error: Option<ErrorKind>) -> Result<Vec<Event>, ErrorKind> {
        match error {
            Some(error) if !self.transcript.is_complete() => Err(error),
            _ => self.transcript.finish(),
        }
    }
}
