//! Streaming parser of an answer: text, reasoning and tool calls.
//!
//! Pure. Works character by character, so the result does not depend on how tokens divide the text.
//! Holds back a possible tag prefix, and whitespace until it is known not to end at a tag.

use std::collections::VecDeque;
use std::mem;

use super::call::CallReader;
use super::call::expected::{ExpectedCalls, Read};
use crate::backends::llama::engine::tool_format::CallFormat;
use crate::backends::llama::wire::piece::Piece;
use crate::backends::llama::wire::reasoning::Tags;

/// The parser of one answer.
#[derive(Debug)]
pub(crate) struct OutputParser {
    /// Neither reasoning nor calls: passes everything through as text.
    plain: bool,
    reasoning: Option<Tags>,
    calls: Option<ExpectedCalls>,
    state: State,
    /// Unread characters; more than one only after a supposed call is returned as text.
    input: VecDeque<char>,
    /// A possible prefix of a tag.
    held: String,
    /// Whitespace to emit before the next character.
    blank: String,
    /// Nothing but whitespace since the answer, or its text, began.
    fresh: bool,
    /// Whitespace here is next to a tag and is dropped.
    drops_blank: bool,
    calls_made: u32,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum State {
    Text,
    Reasoning,
    Call(CallReader),
    BetweenCalls,
    /// Output after the last call is dropped.
    Over,
}

/// A tag that may begin in text.
#[derive(Clone, Copy)]
enum Opener {
    Reasoning,
    Call { tag: &'static str, bare: bool },
}

impl OutputParser {
    /// `reasons_already` if the prompt ends with the tag that opens the reasoning.
    pub(crate) fn new(
        reasoning: Option<Tags>,
        reasons_already: bool,
        calls: Option<ExpectedCalls>,
    ) -> Self {
        let state = if reasons_already { State::Reasoning } else { State::Text };
        Self {
            plain: reasoning.is_none() && calls.is_none(),
            reasoning,
            calls,
            state,
            input: VecDeque::new(),
            held: String::new(),
            blank: String::new(),
            fresh: true,
            drops_blank: reasons_already,
            calls_made: 0,
            pieces: Vec::new(),
        }
    }

    /// Reads more of the answer; returns the pieces that can no longer change.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Piece> {
        if self.plain {
            return if text.is_empty() { vec![] } else { vec![Piece::Text(text.to_owned())] };
        }
        self.prime(text);
        mem::take(&mut self.pieces)
    }

    /// As `push`, for a beginning that is part of the prompt: the next `push` returns its pieces.
    pub(crate) fn prime(&mut self, text: &str) {
        self.input.extend(text.chars());
        self.read();
    }

    /// Ends the answer. The rest becomes text, unless the answer was `cut` off at a limit: then an
    /// incomplete tag, or an incomplete call after one, is dropped.
    pub(crate) fn finish(&mut self, cut: bool) -> Vec<Piece> {
        while let State::Call(reader) = &self.state
            && !reader.has_begun()
            && !self.has_called()
            && !(cut && reader.is_tagged())
        {
            self.give_back();
            self.read();
        }
        if !cut && matches!(self.state, State::Text | State::Reasoning) {
            let held = mem::take(&mut self.held);
            held.chars().for_each(|char| self.show(char));
        }
        if matches!(self.state, State::Text) && self.held.is_empty() && !self.drops_blank {
            let blank = mem::take(&mut self.blank);
            self.append(&blank);
        }
        mem::take(&mut self.pieces)
    }

    /// Bytes that may still become text.
    pub(crate) fn held_len(&self) -> usize {
        self.held.len() + self.blank.len()
    }

    /// Whether everything passes through as text.
    pub(crate) fn is_plain(&self) -> bool {
        self.plain
    }

    /// Whether reasoning may begin here.
    pub(crate) fn may_reason(&self) -> bool {
        matches!(self.state, State::Text)
            && self.reasoning.is_some()
            && self.fresh
            && self.held.is_empty()
    }

    /// The text so far of a call that has certainly begun, up to its arguments.
    pub(crate) fn begun_call(&self) -> Option<&str> {
        match (&self.state, &self.calls) {
            (State::Call(reader), Some(calls)) => reader.surely_begun(&calls.names),
            _ => None,
        }
    }

    /// Whether a call has begun, or another may follow.
    pub(crate) fn is_calling(&self) -> bool {
        matches!(self.state, State::Call(_) | State::BetweenCalls)
    }

    /// Whether no later output can be part of the answer, so that generation can stop.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    pub(crate) fn is_reasoning(&self) -> bool {
        matches!(self.state, State::Reasoning)
    }

    fn has_called(&self) -> bool {
        self.calls_made > 0
    }

    fn read(&mut self) {
        while let Some(char) = self.input.pop_front() {
            match &mut self.state {
                State::Text => self.in_text(char),
                State::Reasoning => self.in_reasoning(char),
                State::Call(reader) => {
                    let Some(calls) = &self.calls else { continue };
                    let read = reader.feed(char, calls);
                    self.in_call(char, read);
                }
                State::BetweenCalls => self.between_calls(char),
                State::Over => {}
            }
        }
    }

    fn in_text(&mut self, char: char) {
        self.held.push(char);
        while let Some(first) = self.held.chars().next() {
            match self.openers().find(|(tag, _)| tag.starts_with(&self.held)) {
                Some((tag, opener)) if tag.len() == self.held.len() => return self.open(opener),
                Some(_) => return,
                None => {
                    self.held.remove(0);
                    self.show(first);
                }
            }
        }
    }

    /// The tags that may begin here.
    fn openers(&self) -> impl Iterator<Item = (&'static str, Opener)> + use<> {
        let reasoning = self.reasoning.filter(|_| self.fresh);
        let format = self.calls.as_ref().map(|calls| calls.format);
        // A brace begins a call only at the start of an answer.
        let bare = format.and_then(CallFormat::bare_opener).filter(|tag| self.fresh || *tag != "{");
        let call = |tag, bare| (tag, Opener::Call { tag, bare });
        reasoning
            .map(|tags| (tags.open, Opener::Reasoning))
            .into_iter()
            .chain(format.map(|format| call(format.opener(), false)))
            .chain(bare.map(|tag| call(tag, true)))
    }

    fn open(&mut self, opener: Opener) {
        self.held.clear();
        self.state = match opener {
            Opener::Reasoning => {
                self.blank.clear();
                self.drops_blank = true;
                State::Reasoning
            }
            Opener::Call { tag, bare } => {
                let Some(format) = self.calls.as_ref().map(|calls| calls.format) else { return };
                if bare {
                    tag.chars().rev().for_each(|char| self.input.push_front(char));
                    State::Call(CallReader::new(format, "", false))
                } else {
                    State::Call(CallReader::new(format, tag, format.opens_array()))
                }
            }
        };
    }

    fn in_reasoning(&mut self, char: char) {
        let Some(tags) = self.reasoning else { return };
        self.held.push(char);
        while let Some(first) = self.held.chars().next() {
            if self.held == tags.close {
                self.held.clear();
                self.blank.clear();
                (self.fresh, self.drops_blank) = (true, true);
                // An answer reasons once.
                self.reasoning = None;
                self.state = State::Text;
            } else if tags.close.starts_with(&self.held) {
                return;
            } else {
                self.held.remove(0);
                self.show(first);
            }
        }
    }

    fn in_call(&mut self, char: char, read: Read) {
        match read {
            Read::More => {}
            Read::Begun { name, arguments } => {
                self.begin(name);
                self.argue(arguments);
            }
            Read::Arguments(arguments) => self.argue(arguments),
            Read::Whole { name, arguments } => {
                self.begin(name);
                self.argue(arguments);
                self.end_call();
            }
            Read::Done { arguments, left } => {
                self.argue(arguments);
                self.end_call();
                if left {
                    self.input.push_front(char);
                }
            }
            Read::NoCall if self.has_called() => self.state = State::Over,
            Read::NoCall => self.give_back(),
        }
    }

    fn begin(&mut self, name: String) {
        self.blank.clear();
        self.pieces.push(Piece::Call { index: self.calls_made, name });
        self.calls_made += 1;
    }

    fn argue(&mut self, text: String) {
        if !text.is_empty() {
            self.add(Piece::Arguments { index: self.calls_made - 1, text });
        }
    }

    fn end_call(&mut self) {
        let more = self.calls.as_ref().is_some_and(|calls| calls.parallel);
        self.state = if more { State::BetweenCalls } else { State::Over };
    }

    fn between_calls(&mut self, char: char) {
        let Some(format) = self.calls.as_ref().map(|calls| calls.format) else { return };
        if self.held.is_empty() && char.is_whitespace() {
            return;
        }
        self.held.push(char);
        let next = if format.opens_array() { "," } else { format.opener() };
        if self.held == next {
            self.held.clear();
            self.state = State::Call(CallReader::new(format, next, false));
        } else if format.closer() == Some(self.held.as_str()) {
            self.held.clear();
        } else if ![Some(next), format.closer()]
            .iter()
            .flatten()
            .any(|tag| tag.starts_with(&self.held))
        {
            self.held.clear();
            self.state = State::Over;
        }
    }

    /// Not a call: emits its opening as text and reads the rest again.
    fn give_back(&mut self) {
        let State::Call(reader) = mem::replace(&mut self.state, State::Text) else { return };
        let (opening, rest) = match reader.opener {
            "" => reader.read.split_at(1),
            tag => (tag, reader.read.as_str()),
        };
        opening.chars().for_each(|char| self.show(char));
        for char in rest.chars().rev() {
            self.input.push_front(char);
        }
    }

    /// One more character of the text or the reasoning.
    fn show(&mut self, char: char) {
        if char.is_whitespace() {
            self.blank.push(char);
            return;
        }
        let blank = mem::take(&mut self.blank);
        if !self.drops_blank {
            self.append(&blank);
        }
        (self.fresh, self.drops_blank) = (false, false);
        self.append(char.encode_utf8(&mut [0; 4]));
    }

    fn append(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let text = text.to_owned();
        let reasons = matches!(self.state, State::Reasoning);
        self.add(if reasons { Piece::Reasoning(text) } else { Piece::Text(text) });
    }

    fn add(&mut self, piece: Piece) {
        let left = match self.pieces.last_mut() {
            Some(last) => last.join(piece),
            None => Some(piece),
        };
        self.pieces.extend(left);
    }
}

#[cfg(test)]
mod tests;
