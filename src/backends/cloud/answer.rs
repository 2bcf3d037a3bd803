//! Reads what an upstream answers: chunk by chunk, or whole. Pure; looks no deeper than it must, and passes the rest on.
//!
//! A field it cannot read but does not need (usage, energy) is unknown, not an error; what breaks the answer's shape is.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::failure;
use crate::backends::backend::{ErrorKind, Event};
use crate::energy::EnergyFigure;
use crate::energy::prediction::upstream;
use crate::openai::{FinishReason, Usage};

/// The state of a streamed answer.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    answered: bool,
    ended: bool,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
    energy: Option<EnergyFigure>,
}

/// What to do with one event of the stream.
#[derive(Debug)]
pub(super) enum Step {
    Forward(Box<RawValue>),
    /// Kept back: the usage-only chunk that the gateway asked for, not the client. The gateway writes its own.
    Withhold,
    /// `[DONE]`.
    End,
}

impl Transcript {
    pub(super) fn read(&mut self, data: String) -> Result<Step, ErrorKind> {
        if data.trim() == "[DONE]" {
            self.ended = true;
            return Ok(Step::End);
        }
        let raw = RawValue::from_string(data).map_err(|_| protocol("a chunk is not JSON"))?;
        let chunk = Shallow::parse(raw.get())?;
        let has_choices = chunk.choices.as_ref().is_some_and(|choices| !choices.is_empty());
        self.answered |= has_choices;
        self.finish = chunk.finish_reason().or(self.finish);
        self.energy = chunk.energy(raw.get()).or(self.energy);
        let usage = chunk.usage();
        self.usage = usage.or(self.usage);
        Ok(if usage.is_some() && !has_choices { Step::Withhold } else { Step::Forward(raw) })
    }

    /// What follows the last chunk. A stream is whole when it said why it finished or closed an answer with `[DONE]`.
    /// `comment` is what a comment of the stream said the answer took; a chunk's own word comes first.
    pub(super) fn finish(self, comment: Option<EnergyFigure>) -> Result<Vec<Event>, ErrorKind> {
        let energy = self.energy.or(comment);
        match self.finish {
            Some(reason) => Ok(closing(self.usage, energy, reason)),
            None if self.ended && self.answered => {
                Ok(closing(self.usage, energy, FinishReason::Stop))
            }
            None => Err(protocol("the stream ended before the answer did")),
        }
    }
}

/// The events of an answer that was not streamed.
pub(super) fn whole(body: Vec<u8>) -> Result<Vec<Event>, ErrorKind> {
    let text = String::from_utf8(body).map_err(|_| protocol("the answer is not UTF-8"))?;
    let raw: Box<RawValue> =
        serde_json::from_str(&text).map_err(|_| protocol("the answer is not JSON"))?;
    let answer = Shallow::parse(raw.get())?;
    let has_choices = answer.choices.as_ref().is_some_and(|choices| !choices.is_empty());
    let has_vectors = answer.data.as_ref().is_some_and(|vectors| !vectors.is_empty());
    if !has_choices && !has_vectors {
        return Err(protocol("the answer has no choices"));
    }
    let reason = answer.finish_reason().unwrap_or(FinishReason::Stop);
    let closing = closing(answer.usage(), answer.energy(raw.get()), reason);
    Ok(std::iter::once(Event::Upstream(raw)).chain(closing).collect())
}

/// An error body that came with a 2xx status and the wrong content type, or `None` if it is something else.
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
    #[serde(default, borrow)]
    finish_reason: Option<Cow<'a, str>>,
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

    /// Words that OpenAI does not know are read as a plain end.
    fn finish_reason(&self) -> Option<FinishReason> {
        let reason = self.choices.iter().flatten().find_map(|c| c.finish_reason.as_deref())?;
        Some(match reason {
            "length" => FinishReason::Length,
            "tool_calls" | "function_call" => FinishReason::ToolCalls,
            "content_filter" => FinishReason::ContentFilter,
            _ => FinishReason::Stop,
        })
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
        let mut transcript = Transcript::default();
        let mut forwarded = Vec::new();
        for &event in events {
            match transcript.read(event.to_owned())? {
                Step::Forward(raw) => forwarded.push(raw.get().to_owned()),
                Step::Withhold => {}
                Step::End => break,
            }
        }
        Ok((forwarded, transcript.finish(None)?))
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
            whole(body.into_bytes()).unwrap().into_iter().find_map(|event| match event {
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
        let events = whole(format!("{body}\n").into_bytes()).unwrap();
        let [Event::Upstream(raw), Event::Usage(_), Event::Done(FinishReason::Stop)] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!(raw.get(), body);
        for broken in ["<html>", r#"{"choices":[]}"#, "{}", "\"hi\"", ""] {
            assert_eq!(whole(broken.into()).unwrap_err().label(), "protocol", "{broken}");
        }
        assert_eq!(whole(vec![b'"', 0xff, b'"']).unwrap_err().label(), "protocol");
    }
}
