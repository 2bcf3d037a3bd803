//! Answers of several choices whose events arrive in any order, for tests of the formats.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::choices::Choices;
use super::events::EventWriter;
use super::format::{Answer, Content, ReplyFormat};
use crate::backends::Event;
use crate::http::receipt::tests::receipt;
use crate::openai::{FinishReason, RankedToken, TokenLogprob, Usage};

/// What a client has of one choice in the end.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Told {
    pub(super) roles: usize,
    pub(super) text: String,
    pub(super) reasoning: String,
    /// Name and arguments.
    pub(super) calls: Vec<String>,
    /// Of the log-probabilities.
    pub(super) tokens: Vec<String>,
    pub(super) finish: Option<String>,
}

/// What a model adds to a choice at once.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Text(String),
    Reasoning(String),
    Call,
    Arguments(String),
    /// Tokens without output yet: a part of a character, of a tag or of a stop string.
    Held,
}

#[derive(Clone, Debug)]
pub(super) struct Script(Vec<Step>);

/// One to five choices.
pub(super) fn told() -> impl Strategy<Value = Vec<Script>> {
    let step = prop_oneof![
        "[a-zé]{1,4}".prop_map(Step::Text),
        "[a-z]{1,4}".prop_map(Step::Reasoning),
        Just(Step::Call),
        "[0-9]{1,3}".prop_map(Step::Arguments),
        Just(Step::Held),
    ];
    let script = prop::collection::vec(step, 0..8).prop_map(Script);
    prop::collection::vec(script, 1..6)
}

/// As [`told`], of text alone.
pub(super) fn told_text() -> impl Strategy<Value = Vec<Script>> {
    let step = prop_oneof!["[a-zé]{1,4}".prop_map(Step::Text), Just(Step::Held)];
    let script = prop::collection::vec(step, 0..8).prop_map(Script);
    prop::collection::vec(script, 1..6)
}

impl Script {
    /// Every step has a token of its own, `t0`, `t1`, …, announced before its output.
    fn events(&self) -> Vec<Event> {
        let mut calls = 0;
        let mut events = Vec::new();
        for (place, step) in self.0.iter().enumerate() {
            let text = format!("t{place}");
            let (bytes, logprob) = (text.clone().into_bytes(), -0.5);
            let chosen = RankedToken { token: text, logprob, bytes };
            events.push(Event::Logprobs(vec![TokenLogprob { chosen, top_logprobs: vec![] }]));
            match step {
                Step::Text(text) => events.push(Event::Text(text.clone())),
                Step::Reasoning(text) => events.push(Event::Reasoning(text.clone())),
                Step::Call => {
                    let (index, id) = (calls, format!("c{calls}"));
                    events.push(Event::ToolCall { index, id, name: "f".into() });
                    calls += 1;
                }
                Step::Arguments(piece) if calls > 0 => {
                    let (index, piece) = (calls - 1, piece.clone());
                    events.push(Event::ToolArguments { index, piece });
                }
                Step::Arguments(_) | Step::Held => {}
            }
        }
        events.push(Event::ChoiceDone(FinishReason::Length));
        events
    }

    /// What all steps come to.
    pub(super) fn sum(&self) -> Told {
        let mut sum = Told { roles: 1, finish: Some("length".into()), ..Told::default() };
        for (place, step) in self.0.iter().enumerate() {
            sum.tokens.push(format!("t{place}"));
            match step {
                Step::Text(text) => sum.text += text,
                Step::Reasoning(text) => sum.reasoning += text,
                Step::Call => sum.calls.push("f".into()),
                Step::Arguments(piece) => {
                    if let Some(call) = sum.calls.last_mut() {
                        *call += piece;
                    }
                }
                Step::Held => {}
            }
        }
        sum
    }
}

/// The events of all choices as a fan-out merges them: the choice that goes on is chosen by `turns`
/// at every event, and the last end is the answer's.
fn merged(choices: &[Script], turns: &[u8]) -> Vec<Event> {
    let mut rest: Vec<(u32, std::vec::IntoIter<Event>)> =
        (0..).zip(choices).map(|(index, script)| (index, script.events().into_iter())).collect();
    let mut turns = turns.iter().copied().cycle();
    let (mut merged, mut present) = (Vec::new(), 0);
    while !rest.is_empty() {
        let place = usize::from(turns.next().unwrap_or(0)) % rest.len();
        let (index, events) = &mut rest[place];
        let Some(event) = events.next() else {
            rest.remove(place);
            continue;
        };
        if *index != present {
            present = *index;
            merged.push(Event::Choice(present));
        }
        merged.push(event);
    }
    let end = merged.pop();
    assert!(matches!(end, Some(Event::ChoiceDone(_))));
    merged.push(Event::Usage(Usage { total_tokens: 9, ..Usage::default() }));
    merged.push(Event::Done(FinishReason::Length));
    merged
}

/// The chunks of a stream.
pub(super) fn stream(format: &mut dyn ReplyFormat, choices: &[Script], turns: &[u8]) -> Vec<Value> {
    play(format, merged(choices, turns))
}

/// The whole answer.
pub(super) fn whole(format: &mut dyn ReplyFormat, choices: &[Script], turns: &[u8]) -> Value {
    collect(format, merged(choices, turns))
}

pub(super) fn play(
    format: &mut dyn ReplyFormat,
    events: impl IntoIterator<Item = Event>,
) -> Vec<Value> {
    let mut out = EventWriter::default();
    for event in events {
        format.event(event, &mut out);
    }
    format.finish(&receipt(), &mut out);
    let text = String::from_utf8(out.take().to_vec()).unwrap();
    let chunks = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    chunks.map(|chunk| serde_json::from_str(chunk).unwrap()).collect()
}

pub(super) fn collect(
    format: &mut dyn ReplyFormat,
    events: impl IntoIterator<Item = Event>,
) -> Value {
    let (mut choices, mut usage) = (Choices::default(), Usage::default());
    for event in events {
        match event {
            Event::Usage(counted) => usage = counted,
            event => choices.take(event),
        }
    }
    let (content, finish) = (Content::Local(choices), FinishReason::Length);
    let answer: Bytes = format.whole(Answer { content, finish, usage }).unwrap();
    serde_json::from_slice(&answer).unwrap()
}
