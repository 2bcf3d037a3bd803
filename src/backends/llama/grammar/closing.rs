//! The shortest-looking way from the middle of a JSON answer to its end, for answers that near their output limit.
//!
//! A search would be dear; a fixed preference is nearly as short: close what is open, else go on to the next demanded
//! member, with an empty string or a single digit where a value is due.

use llguidance::Matcher;
use llguidance::toktrie::{SimpleVob, TokTrie};

/// Outside of strings, in order of preference.
const OUTSIDE: &[u8] = b"}]:,\"[{0123456789ntf";

/// Tokens of one byte each that a way out prefers.
pub(super) struct Closers {
    quote: Option<u32>,
    outside: Vec<u32>,
}

impl Closers {
    pub(super) fn new(trie: &TokTrie) -> Self {
        let token = |byte: &u8| trie.token_id(&[*byte]);
        Self { quote: token(&b'"'), outside: OUTSIDE.iter().filter_map(token).collect() }
    }

    /// The preferred token of those allowed: a closer, else the longest, which gets furthest through what is demanded.
    fn choose(&self, allowed: &SimpleVob, inside: bool, trie: &TokTrie) -> Option<u32> {
        let preferred = if inside { self.quote.as_slice() } else { &self.outside };
        let closer = preferred.iter().copied().find(|&token| allowed.is_allowed(token));
        closer.or_else(|| {
            let mut longest = None;
            for token in allowed.iter() {
                let length = trie.token_len(token);
                if longest.is_none_or(|(most, _)| length > most) {
                    longest = Some((length, token));
                }
            }
            longest.map(|(_, token)| token)
        })
    }

    /// Tokens that complete the answer from where `matcher` and `text` are; `None` if `most` do not suffice.
    pub(super) fn way_out(&self, matcher: &Matcher, text: Text, most: usize) -> Option<Vec<u32>> {
        let (mut matcher, mut text) = (matcher.clone(), text);
        let env = matcher.tok_env().ok()?;
        let trie = env.tok_trie();
        let mut way = Vec::new();
        while !matcher.is_stopped() && !matcher.is_accepting().ok()? {
            if way.len() == most {
                return None;
            }
            let token = self.choose(&matcher.compute_mask().ok()?, text.inside, trie)?;
            matcher.consume_token(token).ok()?;
            text.read(trie.token(token));
            way.push(token);
        }
        (!matcher.is_error()).then_some(way)
    }
}

/// Whether the answer so far ends inside a string.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Text {
    inside: bool,
    escaped: bool,
}

impl Text {
    pub(super) fn read(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.escaped {
                self.escaped = false;
            } else {
                self.escaped = self.inside && byte == b'\\';
                self.inside ^= byte == b'"';
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_told_from_what_is_outside() {
        let inside = |json: &str| {
            let mut text = Text::default();
            text.read(json.as_bytes());
            text.inside
        };
        for json in [r#"{"a"#, r#"{"a": "b\"c"#, r#"["\\\""#] {
            assert!(inside(json), "{json}");
        }
        for json in ["", r#"{"a""#, r#"{"a": "b\"c""#, r#"["\\""#] {
            assert!(!inside(json), "{json}");
        }
    }
}
