//! Streaming from token bytes to the pieces to send: characters, then reasoning and calls, then
//! stop strings.
//!
//! Pure. Stop strings apply to the answer's text only: a line end in the reasoning, or in a call's
//! arguments, does not end the answer.

use super::parser::OutputParser;
use super::utf8_stops::{Released, TextStream};
use crate::backends::llama::wire::piece::Piece;
use crate::openai::FinishReason;

/// The output of one answer.
#[derive(Debug)]
pub(crate) struct OutputStream {
    /// Assembles characters from bytes for the parser.
    characters: TextStream,
    parser: OutputParser,
    text: TextStream,
    /// A call has been emitted.
    called: bool,
}

/// Output that can no longer change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Emitted {
    pub(crate) pieces: Vec<Piece>,
    /// Bytes at the end of the output that are not in any piece yet, or never will be: of a stop
    /// string, and of what follows it.
    pub(crate) held: usize,
    /// No later output can be part of the answer.
    pub(crate) ended: bool,
}

impl OutputStream {
    pub(crate) fn new(parser: OutputParser, stops: Vec<String>) -> Self {
        let characters = TextStream::new(Vec::new());
        Self { characters, parser, text: TextStream::new(stops), called: false }
    }

    pub(crate) fn parser(&self) -> &OutputParser {
        &self.parser
    }

    /// Takes a token's bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Emitted {
        let mut emitted = Emitted::default();
        let pending = self.held_len() + bytes.len();
        let stopped = if self.parser.is_plain() {
            let Released { text, stopped } = self.text.push(bytes);
            emitted.add_text(text);
            stopped
        } else {
            let characters = self.characters.push(bytes).text;
            let pieces = self.parser.push(&characters);
            self.look_for_stops(pieces, &mut emitted)
        };
        emitted.held =
            if stopped { pending.saturating_sub(emitted.text_len()) } else { self.held_len() };
        emitted.ended = stopped || self.parser.is_over();
        emitted
    }

    fn held_len(&self) -> usize {
        self.characters.held_len() + self.parser.held_len() + self.text.held_len()
    }

    /// Ends the answer for the engine's `reason`: adds the rest to the last `emitted` output and
    /// returns the reason for the client.
    pub(crate) fn end(&mut self, reason: FinishReason, emitted: &mut Emitted) -> FinishReason {
        let cut = reason == FinishReason::Length;
        if !self.parser.is_plain() && !emitted.ended {
            let pending = self.held_len() + emitted.text_len();
            let rest = self.characters.finish();
            let mut pieces = self.parser.push(&rest);
            pieces.extend(self.parser.finish(cut));
            let stopped = self.look_for_stops(pieces, emitted);
            emitted.ended |= stopped;
            emitted.held = if stopped { pending.saturating_sub(emitted.text_len()) } else { 0 };
        } else if !emitted.ended {
            emitted.held = 0;
        }
        emitted.add_text(self.text.finish());
        if self.called && !cut { FinishReason::ToolCalls } else { reason }
    }

    /// Adds the pieces up to a stop string; true if there was one.
    fn look_for_stops(&mut self, pieces: Vec<Piece>, emitted: &mut Emitted) -> bool {
        for piece in pieces {
            if let Piece::Text(text) = piece {
                let Released { text, stopped } = self.text.push(text.as_bytes());
                emitted.add_text(text);
                if stopped {
                    return true;
                }
            } else {
                emitted.add_text(self.text.finish());
                self.called |= matches!(piece, Piece::Call { .. });
                emitted.pieces.push(piece);
            }
        }
        false
    }
}

impl Emitted {
    fn text_len(&self) -> usize {
        let length = |piece: &Piece| match piece {
            Piece::Text(text) | Piece::Reasoning(text) => text.len(),
            Piece::Call { .. } | Piece::Arguments { .. } => 0,
        };
        self.pieces.iter().map(length).sum()
    }

    fn add_text(&mut self, text: String) {
        if !text.is_empty() {
            self.pieces.push(Piece::Text(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backends::llama::engine::output::call::expected::ExpectedCalls;
    use crate::backends::llama::engine::tool_format::CallFormat;
    use crate::backends::llama::wire::reasoning::Tags;

    const THINK: Tags = Tags { open: "<think>", close: "</think>" };

    fn stream(parser: OutputParser, stop: &str, tokens: &[&str]) -> (Vec<Piece>, bool) {
        let mut output_stream = OutputStream::new(parser, vec![stop.to_owned()]);
        let mut pieces = Vec::new();
        for token in tokens {
            let emitted = output_stream.push(token.as_bytes());
            pieces.extend(emitted.pieces);
            if emitted.ended {
                return (pieces, true);
            }
        }
        let mut emitted = Emitted::default();
        output_stream.end(FinishReason::Stop, &mut emitted);
        pieces.extend(emitted.pieces);
        (pieces, false)
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    #[test]
    fn a_stop_string_ends_the_text_and_not_the_reasoning() {
        let parser = || OutputParser::new(Some(THINK), false, None);
        let (pieces, ended) =
            stream(parser(), "\n\n", &["<think>a\n\nb", "</think>", "\n\nYes", ".\n\nNo"]);
        let reasoning = Piece::Reasoning("a\n\nb".into());
        assert_eq!((pieces, ended), (vec![reasoning, text("Yes"), text(".")], true));
        // An incomplete stop string is text.
        assert_eq!(stream(parser(), "###", &["a #", "#"]).0.len(), 2);
    }

    #[test]
    fn a_stop_string_does_not_cut_a_call() {
        let calls = ExpectedCalls {
            format: CallFormat::Hermes,
            names: vec!["f".into()],
            schemas: vec![],
            parallel: false,
        };
        let parser = OutputParser::new(None, false, Some(calls));
        let tokens = ["So:", "\n<tool_call>\n{\"name\": \"f\", \"arguments\": ", "{\"a\":\n1}}"];
        let (pieces, ended) = stream(parser, "\n", &tokens);
        let call = Piece::Call { index: 0, name: "f".into() };
        let arguments = Piece::Arguments { index: 0, text: "{\"a\":\n1}".into() };
        assert_eq!((pieces, ended), (vec![text("So:"), call, arguments], true));
    }

    #[test]
    fn what_a_stop_string_cuts_off_is_held_whether_or_not_tools_are_offered() {
        let calls = || ExpectedCalls {
            format: CallFormat::Hermes,
            names: vec!["f".into()],
            schemas: vec![],
            parallel: false,
        };
        for calls in [None, Some(calls())] {
            let parser = OutputParser::new(None, false, calls);
            let mut stream = OutputStream::new(parser, vec![" with".into()]);
            let held = |emitted: Emitted| (emitted.held, emitted.ended);
            assert_eq!(held(stream.push(b"sunny")), (0, false));
            assert_eq!(held(stream.push(b", ")), (1, false));
            assert_eq!(held(stream.push(b"w")), (2, false));
            assert_eq!(held(stream.push("ith a \u{e9}".as_bytes())), (10, true));
        }
        let mut stream = OutputStream::new(OutputParser::new(None, false, None), vec![]);
        assert_eq!(stream.push(b"\xc3").held, 1);
        assert_eq!(stream.push(b"\xa9").held, 0);
    }

    #[test]
    fn a_plain_answer_is_unchanged() {
        let (pieces, ended) =
            stream(OutputParser::new(None, false, None), "END", &["a <think> ", "EN", "DE"]);
        assert_eq!((pieces, ended), (vec![text("a <think> ")], true));
    }

    /// All pieces of an answer with tokens of `cuts` bytes, joined, and its end.
    fn collected(
        mut output_stream: OutputStream,
        answer: &str,
        cuts: &[usize],
    ) -> (Vec<Piece>, FinishReason) {
        let (mut collected, mut rest): (Vec<Piece>, _) = (Vec::new(), answer.as_bytes());
        for cut in cuts.iter().cycle() {
            let (token, after) = rest.split_at((*cut).min(rest.len()));
            rest = after;
            let mut emitted = output_stream.push(token);
            let ends = emitted.ended || rest.is_empty();
            let reason = ends.then(|| output_stream.end(FinishReason::Stop, &mut emitted));
            for piece in emitted.pieces {
                let left = match collected.last_mut() {
                    Some(last) => last.join(piece),
                    None => Some(piece),
                };
                collected.extend(left);
            }
            if let Some(reason) = reason {
                return (collected, reason);
            }
        }
        unreachable!("there are cuts");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Tokens may end anywhere, even within a character: the pieces are the same.
        #[test]
        fn cuts_do_not_matter(
            parts in prop::collection::vec(prop::sample::select(vec![
                "<think>", "</think>", "<tool_call>", "</tool_call>", "<", "é", "🦀", " ", "\n", "stop", "st", "{",
                "{\"name\": \"f\", \"arguments\": {\"a\": \"stop\"}}", "{\"name\": \"g\"}",
            ]), 0..12),
            cuts in prop::collection::vec(1..7usize, 1..40),
            (reasons, calls, parallel) in any::<(bool, bool, bool)>(),
        ) {
            let answer = parts.concat();
            let output_stream = || {
                let names = vec!["f".to_owned()];
                let calls = calls.then_some(ExpectedCalls {
                    format: CallFormat::Hermes,
                    names,
                    schemas: vec![],
                    parallel,
                });
                let parser = OutputParser::new(reasons.then_some(THINK), false, calls);
                OutputStream::new(parser, vec!["stop".to_owned(), "\n\n".to_owned()])
            };
            let whole = collected(output_stream(), &answer, &[answer.len().max(1)]);
            prop_assert_eq!(collected(output_stream(), &answer, &cuts), whole);
        }
    }
}
