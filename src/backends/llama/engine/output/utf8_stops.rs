//! Token bytes to text: complete UTF-8 characters, and nothing past a stop string.
//!
//! Pure. A token may end within a character or a stop string; holds back as little as possible.

use std::mem;

/// The text of one answer.
#[derive(Debug, Default)]
pub(crate) struct TextStream {
    stops: Vec<String>,
    /// An incomplete character; at most 3 bytes.
    partial: Vec<u8>,
    /// A possible prefix of a stop string.
    held: String,
}

/// Text released by one more token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Released {
    pub(crate) text: String,
    /// A stop string matched; it and everything after it are dropped.
    pub(crate) stopped: bool,
}

impl TextStream {
    /// Ignores empty stop strings: they would end every answer at once.
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self {
            stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(),
            ..Self::default()
        }
    }

    /// Takes a token's bytes; releases text that can no longer change.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Released {
        self.partial.extend_from_slice(bytes);
        self.decode();
        if let Some(at) = self.first_stop() {
            self.held.truncate(at);
            self.partial.clear();
            return Released { text: mem::take(&mut self.held), stopped: true };
        }
        let kept = self.held.split_off(self.held.len() - self.undecided_len());
        Released { text: mem::replace(&mut self.held, kept), stopped: false }
    }

    /// Bytes that are not released yet.
    pub(crate) fn held_len(&self) -> usize {
        self.held.len() + self.partial.len()
    }

    /// Ends the answer and releases the rest. An incomplete character becomes U+FFFD.
    pub(crate) fn finish(&mut self) -> String {
        let mut text = mem::take(&mut self.held);
        text.push_str(&String::from_utf8_lossy(&self.partial));
        self.partial.clear();
        text
    }

    /// Moves complete characters from `partial` to `held`; invalid bytes become U+FFFD.
    fn decode(&mut self) {
        let bytes = mem::take(&mut self.partial);
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.held.push_str(chunk.valid());
            let invalid = chunk.invalid();
            // `None`: incomplete, and more bytes may complete it unless some have come already.
            let unfinished = chunks.peek().is_none()
                && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if unfinished {
                self.partial = invalid.to_vec();
            } else if !invalid.is_empty() {
                self.held.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }

    /// Start of the stop string that completes first, so that the result does not depend on token
    /// boundaries.
    fn first_stop(&self) -> Option<usize> {
        first_complete(&self.held, &self.stops)
    }

    /// Length of the longest suffix of `held` that is a prefix of a stop string.
    fn undecided_len(&self) -> usize {
        let undecided = |stop: &String| {
            let longest = (stop.len() - 1).min(self.held.len());
            (1..=longest)
                .rev()
                .find(|&len| stop.is_char_boundary(len) && self.held.ends_with(&stop[..len]))
        };
        self.stops.iter().filter_map(undecided).max().unwrap_or(0)
    }
}

/// Start of the stop string that ends first in `text`; of two with the same end, the longer.
fn first_complete(text: &str, stops: &[String]) -> Option<usize> {
    let found = stops.iter().filter_map(|stop| Some((text.find(stop.as_str())?, stop.len())));
    found.min_by_key(|&(start, len)| (start + len, start)).map(|(start, _)| start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(stops: &[&str]) -> TextStream {
        TextStream::new(stops.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_incomplete_character_is_held_back() {
        let mut text = stream(&[]);
        let [first, second @ ..] = "é".as_bytes() else { panic!("two bytes") };
        assert_eq!(text.push(&[b'a', *first]).text, "a");
        assert_eq!(text.push(second).text, "é");
        assert_eq!(text.push(&[*first]).text, "");
        assert_eq!(text.finish(), "\u{fffd}");
    }

    #[test]
    fn invalid_bytes_are_replaced_at_once() {
        assert_eq!(stream(&[]).push(b"a\xffb").text, "a\u{fffd}b");
    }

    #[test]
    fn an_incomplete_character_in_the_middle_stays_in_its_place() {
        // Regression, found by fuzzing: it was moved behind the rest of the token, or lost.
        for bytes in [b"a\xf0 b\xc3".as_slice(), b"\xf0\x9f\xf0\x9f\xa6\x80", b"\xe4\xb8a\xe4\xb8"]
        {
            let (mut whole, mut cut) = (stream(&[]), stream(&[]));
            let text = whole.push(bytes).text + &whole.finish();
            assert_eq!(text, String::from_utf8_lossy(bytes));
            let bytewise: String = bytes.chunks(1).map(|byte| cut.push(byte).text).collect();
            assert_eq!(bytewise + &cut.finish(), text);
        }
    }

    #[test]
    fn a_stop_string_across_tokens_is_never_emitted() {
        let mut text = stream(&["###"]);
        assert_eq!(text.push(b"one #").text, "one ");
        assert_eq!(text.push(b"# two").text, "## two");
        assert_eq!(text.push(b" ##").text, " ");
        assert_eq!(text.push(b"# three"), Released { text: String::new(), stopped: true });
    }

    #[test]
    fn the_earliest_of_several_stops_ends_the_answer() {
        let released = stream(&["world", "lo"]).push(b"hello world");
        assert_eq!(released, Released { text: "hel".into(), stopped: true });
    }

    #[test]
    fn held_back_text_is_released_at_the_end() {
        let mut text = stream(&["END"]);
        assert_eq!(text.push(b"the EN").text, "the ");
        assert_eq!(text.finish(), "EN");
    }

    #[test]
    fn the_stop_string_that_completes_first_ends_the_answer() {
        // Regression: the longer string begins earlier, but the answer ends before it completes.
        let mut at_once = stream(&["b", "abc"]);
        assert_eq!(at_once.push(b"xabc").text, "xa");
        let mut bytewise = stream(&["b", "abc"]);
        // The engine pushes nothing after a stop.
        let text: String = b"xab".chunks(1).map(|byte| bytewise.push(byte).text).collect();
        assert_eq!(text, "xa");
    }

    proptest! {
        /// The text does not depend on how bytes are divided into tokens.
        #[test]
        fn cuts_do_not_matter(
            answer in "[abé世🦀]{0,40}",
            stops in prop::collection::vec("[abé世]{1,3}", 0..3),
            cuts in prop::collection::vec(1..5usize, 1..60),
        ) {
            let expected = first_complete(&answer, &stops);
            let mut text = TextStream::new(stops);
            let (mut shown, mut stopped, mut rest) = (String::new(), false, answer.as_bytes());
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() || stopped {
                    break;
                }
                let (token, after) = rest.split_at(cut.min(rest.len()));
                rest = after;
                let released = text.push(token);
                shown.push_str(&released.text);
                stopped = released.stopped;
            }
            shown.push_str(&text.finish());
            prop_assert_eq!(stopped, expected.is_some());
            prop_assert_eq!(shown, &answer[..expected.unwrap_or(answer.len())]);
        }
    }
}
