//! What an upstream answers, chunk by chunk. Pure; looks no deeper than it must, and passes the
//! rest on.
//!
//! Text is never held back: what is held is the chunk that ends the answer, so that the receipt can
//! join it. A member that cannot be read is absent; what breaks the answer's shape is an error.

mod chunk;
mod closing;
mod collected;
mod shape;
mod usage;
mod whole;

use bytes::{Bytes, BytesMut};

use self::chunk::Chunk;
use self::closing::closing;
pub(super) use self::collected::collected;
use self::shape::Shape;
pub(super) use self::whole::{as_chunks, whole};
use super::failure;
use super::json_text;
use super::sse::Scanner;
use crate::backends::Chunks;
use crate::backends::backend::{ErrorKind, Event};
use crate::energy::EnergyFigure;
use crate::openai::{FinishReason, Request, Usage};

/// Most bytes of one event, so that an upstream cannot fill the memory: as much as a whole answer
/// may have, for a chunk can hold a picture.
const EVENT_BYTES_MAX: usize = 32 << 20;

/// The state of a streamed answer.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    scanner: Scanner,
    answer: Answer,
}

/// What the client asked for, as far as it shapes the stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    choices: usize,
    /// A chunk with the usage at the end.
    usage: bool,
    /// Raw text instead of a conversation's turn.
    raw: bool,
}

impl Asked {
    pub(super) fn of(request: &Request) -> Self {
        Self {
            choices: request.choices() as usize,
            usage: request.wants_stream_usage(),
            raw: matches!(request, Request::Completion(_)),
        }
    }
}

#[derive(Debug, Default)]
struct Answer {
    asked: Asked,
    /// Chunks to forward, and how many of them carry output.
    ready: BytesMut,
    outputs: u32,
    /// Of the last chunk, if it was forwarded and carried nothing but text.
    shape: Option<Shape>,
    /// The chunk that ended the last choice, without output.
    last: Option<Bytes>,
    /// The latest chunk that carries nothing but the usage.
    usage_chunk: Option<Bytes>,
    /// Indices of the choices that have begun and of those that have ended.
    begun: Vec<u32>,
    finished: Vec<u32>,
    /// `[DONE]` has come; what follows it is not read.
    done: bool,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
    energy: Option<EnergyFigure>,
    /// Members that all chunks share: id, model and so on.
    common: Vec<(&'static str, String)>,
}

impl Transcript {
    pub(super) fn new(asked: Asked) -> Self {
        Self { scanner: Scanner::default(), answer: Answer { asked, ..Answer::default() } }
    }

    /// Reads a piece of the stream.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<(), ErrorKind> {
        let answer = &mut self.answer;
        self.scanner.feed(piece, |data, is_error| answer.read(data, is_error))?;
        if self.scanner.held_bytes() > EVENT_BYTES_MAX {
            return Err(ErrorKind::Protocol(format!("an event of over {EVENT_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    /// Reads an answer that came whole where a stream was asked for.
    pub(super) fn feed_whole(&mut self, body: &[u8]) -> Result<(), ErrorKind> {
        let chunks = as_chunks(body)?;
        self.answer.asked.choices = 0;
        chunks.iter().try_for_each(|chunk| self.answer.read(chunk.as_bytes(), false))?;
        self.answer.done = true;
        Ok(())
    }

    /// The chunks that have come since the last call and do not end the answer.
    pub(super) fn forward(&mut self) -> Option<Chunks> {
        self.answer.forward()
    }

    /// Whether `[DONE]` has come.
    pub(super) fn is_done(&self) -> bool {
        self.answer.done
    }

    /// Whether every choice has ended: all that can follow is the usage.
    pub(super) fn is_complete(&self) -> bool {
        self.answer.is_complete()
    }

    /// Whether a chunk has come.
    pub(super) fn has_begun(&self) -> bool {
        !self.answer.begun.is_empty()
    }

    /// The usage so far: an answer that breaks off is owed for as well.
    pub(super) fn usage(&self) -> Option<Usage> {
        self.answer.usage
    }

    /// What follows the forwarded chunks. A stream is whole when every choice said why it finished,
    /// or when `[DONE]` closed an answer. A chunk's own word of its energy comes before that of a
    /// comment.
    pub(super) fn finish(self) -> Result<Vec<Event>, ErrorKind> {
        let Self { mut scanner, mut answer } = self;
        // Half an event at the end is none; one that only lacks its blank line counts.
        let last = scanner.end(|data, is_error| answer.read(data, is_error));
        if let Err(error) = last
            && !answer.is_complete()
            && !matches!(error, ErrorKind::Protocol(_))
        {
            return Err(error);
        }
        let comment = scanner.energy();
        if !(answer.is_complete() || (answer.done && !answer.begun.is_empty())) {
            return Err(failure::protocol("the stream ended before the answer did"));
        }
        let end = answer.last.take().unwrap_or_else(|| answer.end_chunk().into());
        let last = match answer.usage_chunk.take() {
            None => end,
            Some(usage) => {
                answer.push(&end, false);
                usage
            }
        };
        let others = answer.forward().map(Event::UpstreamChunks);
        let last = Event::UpstreamChunks(Chunks::last(&last, 0));
        let mut events: Vec<Event> = others.into_iter().chain([last]).collect();
        let reason = answer.finish.unwrap_or(FinishReason::Stop);
        events.extend(closing(answer.usage, answer.energy.or(comment), reason));
        Ok(events)
    }
}

impl Answer {
    /// Reads the data of one event; `is_error` if the event's name says that it is one.
    fn read(&mut self, data: &[u8], is_error: bool) -> Result<(), ErrorKind> {
        let data = data.trim_ascii();
        if self.done || data.is_empty() {
            return Ok(());
        }
        if data == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        if !is_error && self.shape.as_ref().is_some_and(|shape| shape.fits(data)) {
            self.push(data, true);
            return Ok(());
        }
        self.shape = None;
        let json =
            std::str::from_utf8(data).map_err(|_| failure::protocol("the stream is not UTF-8"))?;
        if is_error {
            return Err(failure::reported_json(json));
        }
        if !json.starts_with('{') {
            // A list of errors, as Gemini writes them; anything else that is no object is an
            // upstream's own affair.
            let listed = serde_json::from_str(json).ok().as_ref().and_then(failure::in_answer);
            return listed.map_or(Ok(()), Err);
        }
        if let Some(chunk) = Chunk::parse(json) {
            return self.take(json, &chunk);
        }
        let finite = json_text::finite(json);
        let chunk = finite.as_deref().and_then(|json| Some((json, Chunk::parse(json)?)));
        let (json, chunk) =
            chunk.ok_or_else(|| failure::protocol("a chunk is not of OpenAI's form"))?;
        self.take(json, &chunk)
    }

    fn take(&mut self, json: &str, chunk: &Chunk<'_>) -> Result<(), ErrorKind> {
        if let Some(error) = chunk.error() {
            return Err(failure::reported_json(error));
        }
        if chunk.is_error() {
            return Err(failure::reported_json(json));
        }
        self.energy = chunk.energy().or(self.energy);
        self.usage = chunk.member("usage").and_then(|json| usage::read(json, true)).or(self.usage);
        let cleaned = chunk.without_receipt();
        let bytes = cleaned.as_deref().unwrap_or(json).as_bytes();
        if chunk.is_usage_only() {
            // The gateway asks for it always.
            self.usage_chunk = self.asked.usage.then(|| Bytes::copy_from_slice(bytes));
            return Ok(());
        }
        if chunk.is_odd {
            return Ok(());
        }
        if self.common.is_empty() {
            let names = ["id", "object", "created", "model"];
            let common = names.into_iter().map(|name| (name, chunk.member(name)));
            self.common = common.filter_map(|(name, value)| Some((name, value?.into()))).collect();
        }
        for choice in &chunk.choices {
            note(&mut self.begun, choice.index);
            if let Some(reason) = choice.finish {
                note(&mut self.finished, choice.index);
                self.finish = Some(reason);
            }
        }
        if !self.is_complete() {
            self.push(bytes, chunk.has_output());
            let text = chunk.only_text().filter(|_| cleaned.is_none());
            self.shape = text.map(|text| Shape::of(json, text));
        } else if !chunk.has_output() {
            if let Some(earlier) = self.last.replace(Bytes::copy_from_slice(bytes)) {
                self.push(&earlier, false);
            }
        } else if chunk.finishes() && self.last.is_none() {
            let (said, end) = chunk.split();
            self.push(said.as_bytes(), true);
            self.last = Some(end.into());
        } else {
            self.push(bytes, true);
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        let finished = self.finished.len();
        finished > 0 && finished >= self.begun.len().max(self.asked.choices)
    }

    fn forward(&mut self) -> Option<Chunks> {
        let outputs = std::mem::take(&mut self.outputs);
        (!self.ready.is_empty()).then(|| Chunks::new(self.ready.split().freeze(), outputs))
    }

    fn push(&mut self, chunk: &[u8], has_output: bool) {
        Chunks::write_event(&mut self.ready, chunk);
        self.outputs += u32::from(has_output);
    }

    /// A chunk that ends the choices of which the upstream did not say that they had ended.
    fn end_chunk(&self) -> String {
        let addition = if self.asked.raw { r#""text":"""# } else { r#""delta":{}"# };
        let open = self.begun.iter().filter(|index| !self.finished.contains(index));
        let mut ends: Vec<String> = open
            .map(|index| format!(r#"{{"index":{index},{addition},"finish_reason":"stop"}}"#))
            .collect();
        if ends.is_empty() {
            ends.push(format!(r#"{{"index":0,{addition},"finish_reason":null}}"#));
        }
        let choices = json_text::list(&ends);
        let common = self.common.iter().map(|(name, value)| (*name, &**value));
        json_text::object(common.chain([("choices", &*choices)]))
    }
}

fn note(indices: &mut Vec<u32>, index: u32) {
    if !indices.contains(&index) {
        indices.push(index);
    }
}

#[cfg(test)]
mod tests;
