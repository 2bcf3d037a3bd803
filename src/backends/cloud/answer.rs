//! What an upstream answers, chunk by chunk or whole. Pure; looks no deeper than it must, and
//! passes the rest on.
//!
//! A field it cannot read but does not need (usage, energy) is unknown, not an error; what breaks
//! the answer's shape is.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::failure;
use super::sse::Scanner;
use crate::backends::Chunks;
use crate::backends::backend::{ErrorKind, Event};
use crate::energy::EnergyFigure;
use crate::energy::prediction::upstream;
use crate::openai::{FinishReason, Usage};

/// Most bytes of one event, so that an upstream cannot fill the memory: as much as a whole answer
/// may have, for a chunk can hold a picture.
const EVENT_BYTES_MAX: usize = 32 << 20;

/// The state of a streamed answer.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    scanner: Scanner,
    answer: Answer,
}

#[derive(Debug, Default)]
struct Answer {
    /// Chunks to forward.
    ready: BytesMut,
    ready_chunks: u32,
    /// The chunk that may be the last one.
    last: Option<Vec<u8>>,
    /// How many choices were asked for.
    choices: usize,
    /// Indices of the choices that have begun and of those that have ended.
    begun: Vec<u32>,
    finished: Vec<u32>,
    /// `[DONE]` has come; what follows it is not read.
    done: bool,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
    energy: Option<EnergyFigure>,
}

impl Transcript {
    /// An answer with so many choices.
    pub(super) fn new(choices: u32) -> Self {
        let answer = Answer { choices: choices as usize, ..Answer::default() };
        Self { scanner: Scanner::default(), answer }
    }

    /// Reads a piece of the stream.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<(), ErrorKind> {
        let answer = &mut self.answer;
        self.scanner.feed(piece, |data| answer.read(data))?;
        if self.scanner.held_bytes() > EVENT_BYTES_MAX {
            return Err(ErrorKind::Protocol(format!("an event of over {EVENT_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    /// The chunks that have come since the last call and are not the answer's last.
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

    /// What follows the last chunk. A stream is whole when every choice said why it finished, or
    /// when `[DONE]` closed an answer. A chunk's own word of its energy comes before that of a
    /// comment.
    pub(super) fn finish(self) -> Result<Vec<Event>, ErrorKind> {
        let comment = self.scanner.energy();
        let Answer { done, begun, finished, last, finish, usage, energy, .. } = self.answer;
        let is_whole = done || finished.len() >= begun.len();
        let reason = match finish {
            Some(reason) if is_whole => reason,
            None if done && !begun.is_empty() => FinishReason::Stop,
            _ => return Err(protocol("the stream ended before the answer did")),
        };
        let last = last.map(|chunk| Event::UpstreamChunks(Chunks::last(&chunk, 1)));
        Ok(last.into_iter().chain(closing(usage, energy.or(comment), reason)).collect())
    }
}

impl Answer {
    /// Reads the data of one event.
    fn read(&mut self, data: &[u8]) -> Result<(), ErrorKind> {
        let data = data.trim_ascii();
        if self.done || data.is_empty() {
            return Ok(());
        }
        if data == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        let json = std::str::from_utf8(data).map_err(|_| protocol("the stream is not UTF-8"))?;
        let chunk = Shallow::parse(json)?;
        self.energy = chunk.energy(json).or(self.energy);
        let usage = chunk.usage();
        self.usage = usage.or(self.usage);
        let mut has_choices = false;
        for choice in chunk.choices() {
            has_choices = true;
            note(&mut self.begun, choice.index);
            if let Some(reason) = choice.finish_reason() {
                note(&mut self.finished, choice.index);
                self.finish = Some(reason);
            }
        }
        if usage.is_some() && !has_choices {
            // The usage-only chunk that the gateway asked for, not the client: the gateway writes
            // its own.
            return Ok(());
        }
        self.release_last();
        if self.is_complete() {
            self.last = Some(data.to_vec());
        } else {
            self.push(data);
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        let finished = self.finished.len();
        finished > 0 && finished >= self.begun.len().max(self.choices)
    }

    fn forward(&mut self) -> Option<Chunks> {
        let count = std::mem::take(&mut self.ready_chunks);
        (count > 0).then(|| Chunks::new(self.ready.split().freeze(), count))
    }

    /// The chunk held back was not the last one.
    fn release_last(&mut self) {
        if let Some(chunk) = self.last.take() {
            self.push(&chunk);
        }
    }

    fn push(&mut self, data: &[u8]) {
        Chunks::write_event(&mut self.ready, data);
        self.ready_chunks += 1;
    }
}

fn note(indices: &mut Vec<u32>, index: u32) {
    if !indices.contains(&index) {
        indices.push(index);
    }
}

/// The events of an answer that was not streamed.
pub(super) fn whole(body: &Bytes) -> Result<Vec<Event>, ErrorKind> {
    let object = body.slice_ref(body.trim_ascii());
    let json = std::str::from_utf8(&object).map_err(|_| protocol("the answer is not UTF-8"))?;
    let answer = Shallow::parse(json)?;
    let has_vectors = answer.data.as_ref().is_some_and(|vectors| !vectors.is_empty());
    if answer.choices().next().is_none() && !has_vectors {
        return Err(protocol("the answer has no choices"));
    }
    let reason = answer.choices().find_map(ShallowChoice::finish_reason);
    let (usage, energy) = (answer.usage(), answer.energy(json));
    let closing = closing(usage, energy, reason.unwrap_or(FinishReason::Stop));
    Ok(std::iter::once(Event::UpstreamAnswer(object)).chain(closing).collect())
}

/// An error body that came with a 2xx status and the wrong content type, or `None` if it is
/// something else.
pub(super) fn misplaced_error(body: &[u8]) -> Option<ErrorKind> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body.get("error").map(failure::reported)
}

fn closing(usage: Option<Usage>, energy: Option<EnergyFigure>, reason: FinishReason) -> Vec<Event> {
    let known = [usage.map(Event::Usage), energy.map(Event::Energy)];
    known.into_iter().flatten().chain([Event::Done(reason)]).collect()
}

fn protocol(what: &str) -> ErrorKind {
    ErrorKind::Protocol(what.to_owned())
}

/// The few fields of a chunk or of a whole answer that are read.
#[derive(Deserialize)]
struct Shallow<'a> {
    #[serde(default)]
    object: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    choices: Option<Vec<ShallowChoice<'a>>>,
    /// The vectors of an answer to a request for embeddings.
    #[serde(default)]
    data: Option<Vec<IgnoredAny>>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
    #[serde(default)]
    energy: Option<IgnoredAny>,
    #[serde(default)]
    energy_joules: Option<IgnoredAny>,
    #[serde(default)]
    wattgate: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct ShallowChoice<'a> {
    #[serde(default)]
    index: u32,
    #[serde(default, borrow)]
    finish_reason: Option<Cow<'a, str>>,
}

impl ShallowChoice<'_> {
    /// Some servers write "" while the answer goes on; words that OpenAI does not know are read as
    /// a plain end.
    fn finish_reason(&self) -> Option<FinishReason> {
        match self.finish_reason.as_deref()? {
            "" => None,
            "length" => Some(FinishReason::Length),
            "tool_calls" | "function_call" => Some(FinishReason::ToolCalls),
            "content_filter" => Some(FinishReason::ContentFilter),
            _ => Some(FinishReason::Stop),
        }
    }
}

impl<'a> Shallow<'a> {
    fn parse(json: &'a str) -> Result<Self, ErrorKind> {
        let parsed: Self = serde_json::from_str(json)
            .map_err(|_| protocol("a chunk or answer is not of OpenAI's form"))?;
        match parsed.error {
            Some(error) => Err(failure::reported(&value(error))),
            None if parsed.object.as_deref() == Some("error") => {
                Err(failure::reported(&serde_json::from_str(json).unwrap_or_default()))
            }
            None => Ok(parsed),
        }
    }

    fn choices(&self) -> impl Iterator<Item = &ShallowChoice<'a>> {
        self.choices.iter().flatten()
    }

    fn usage(&self) -> Option<Usage> {
        serde_json::from_str(self.usage?.get()).ok()
    }

    /// What the upstream says the answer took, read from `json`, which this was parsed from.
    fn energy(&self, json: &str) -> Option<EnergyFigure> {
        let fields = [self.energy, self.energy_joules, self.wattgate];
        // Nearly no upstream reports any, so most chunks are not read again.
        if fields.iter().any(Option::is_some) { upstream::from_body(json) } else { None }
    }
}

fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Joules;

    const TEXT: &str =
        r#"{"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}],"usage":null}"#;
    const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#;
    const USAGE: &str =
        r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}"#;

    /// What is forwarded, and what follows.
    fn play(events: &[&str]) -> Result<(Vec<String>, Vec<Event>), ErrorKind> {
        play_choices(1, events)
    }

    fn play_choices(choices: u32, events: &[&str]) -> Result<(Vec<String>, Vec<Event>), ErrorKind> {
        let mut transcript = Transcript::new(choices);
        let mut forwarded = Vec::new();
        let mut take = |chunks: &Chunks| forwarded.extend(chunks.objects().map(str::to_owned));
        for &event in events {
            transcript.feed(format!("data: {event}\n\n").as_bytes())?;
            if let Some(chunks) = transcript.forward() {
                take(&chunks);
            }
        }
        let mut closing = transcript.finish()?;
        if let Some(Event::UpstreamChunks(last)) = closing.first() {
            take(last);
            closing.remove(0);
        }
        Ok((forwarded, closing))
    }

    #[test]
    fn chunks_pass_unchanged_and_the_usage_chunk_becomes_an_event() {
        let spaced = r#"{ "choices" : [ {"delta":{"content":"\u00e9"}} ], "x": 1.0e0 }"#;
        let (forwarded, closing) = play(&[TEXT, spaced, STOP, USAGE, "[DONE]"]).unwrap();
        assert_eq!(forwarded, [TEXT, spaced, STOP]);
        let [Event::Usage(usage), Event::Done(FinishReason::Length)] = closing[..] else {
            panic!("{closing:?}")
        };
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (7, 3));
    }

    #[test]
    fn running_usage_counts_once_and_stays_in_its_chunk() {
        let running = |tokens| {
            format!(
                r#"{{"choices":[{{"finish_reason":null}}],"usage":{{"completion_tokens":{tokens}}}}}"#
            )
        };
        let (forwarded, closing) = play(&[&running(1), &running(2), STOP]).unwrap();
        assert_eq!(forwarded.len(), 3);
        assert!(
            matches!(closing[..], [Event::Usage(usage), Event::Done(_)] if usage.completion_tokens == 2)
        );
    }

    #[test]
    fn a_stream_is_whole_with_a_finish_reason_or_with_done_after_output() {
        assert!(play(&[TEXT, STOP]).is_ok());
        assert!(play(&[TEXT, "[DONE]"]).is_ok());
        for broken in [&[TEXT][..], &["[DONE]"], &[USAGE, "[DONE]"], &[]] {
            assert_eq!(play(broken).unwrap_err().label(), "protocol", "{broken:?}");
        }
    }

    #[test]
    fn errors_and_nonsense_in_a_stream_end_it() {
        let label = |event: &str| play(&[TEXT, event]).unwrap_err().label();
        assert_eq!(label(r#"{"error":{"message":"m","type":"server_error"}}"#), "upstream_status");
        assert_eq!(label(r#"{"object":"error","message":"m","code":400}"#), "invalid_request");
        for nonsense in ["{", "[1]", "7", r#"{"choices":5}"#, r#"{"choices":[5]}"#] {
            assert_eq!(label(nonsense), "protocol", "{nonsense}");
        }
    }

    #[test]
    fn a_choice_ends_with_a_reason_that_is_not_empty() {
        let open = r#"{"choices":[{"delta":{"content":"w"},"finish_reason":""}]}"#;
        assert_eq!(play(&[open, open]).unwrap_err().label(), "protocol");
        let (forwarded, closing) = play(&[open, STOP]).unwrap();
        assert_eq!(forwarded, [open, STOP]);
        assert!(matches!(closing[..], [Event::Done(FinishReason::Length)]));
    }

    #[test]
    fn of_several_choices_each_must_end_and_none_waits_for_the_others() {
        let text = r#"{"choices":[{"index":1,"delta":{"content":"half"}}]}"#;
        let end = r#"{"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}"#;
        let mut transcript = Transcript::new(2);
        let mut feed = |event: &str| {
            transcript.feed(format!("data: {event}\n\n").as_bytes()).unwrap();
            let chunks = transcript.forward();
            chunks.map_or(0, |chunks| chunks.objects().count())
        };
        assert_eq!([feed(STOP), feed(text), feed(end), feed(text)], [1, 1, 0, 1]);
        let both = play_choices(2, &[STOP, text, end]).unwrap();
        assert_eq!(both.0, [STOP, text, end]);
        assert_eq!(play_choices(2, &[STOP, text]).unwrap_err().label(), "protocol");
        assert!(play_choices(2, &[STOP, text, "[DONE]"]).is_ok());
    }

    #[test]
    fn what_is_not_needed_may_be_odd() {
        let odd =
            r#"{"choices":[{"finish_reason":"eos"}],"usage":"none","energy":[],"wattgate":3}"#;
        let (_, closing) = play(&[odd]).unwrap();
        assert!(matches!(closing[..], [Event::Done(FinishReason::Stop)]));
    }

    #[test]
    fn energy_that_an_upstream_reports_is_an_event() {
        let energy = |field: &str| {
            let body = format!(r#"{{"choices":[{{"finish_reason":"stop"}}],{field}}}"#);
            whole(&body.into()).unwrap().into_iter().find_map(|event| match event {
                Event::Energy(figure) => figure.joules,
                _ => None,
            })
        };
        assert_eq!(energy(r#""energy":{"energy_joules":4.5}"#), Some(Joules(4.5)));
        assert_eq!(energy(r#""energy_joules":3.5"#), Some(Joules(3.5)));
        assert_eq!(energy(r#""wattgate":{"energy":{"joules":2.0}}"#), Some(Joules(2.0)));
        assert_eq!(energy(r#""energy":{"energy_joules":-1}"#), None);
    }

    #[test]
    fn a_whole_answer_is_passed_on_as_written() {
        let body =
            "{\n \"choices\": [{\"finish_reason\":\"stop\"}], \"usage\": {\"total_tokens\":3}\n}";
        let events = whole(&format!("{body}\n").into()).unwrap();
        let [Event::UpstreamAnswer(raw), Event::Usage(_), Event::Done(FinishReason::Stop)] =
            &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!(raw, body);
        for broken in ["<html>", r#"{"choices":[]}"#, "{}", "\"hi\"", ""] {
            assert_eq!(whole(&broken.into()).unwrap_err().label(), "protocol", "{broken}");
        }
        assert_eq!(whole(&vec![b'"', 0xff, b'"'].into()).unwrap_err().label(), "protocol");
    }
}
