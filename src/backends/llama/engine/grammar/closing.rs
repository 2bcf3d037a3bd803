//! The shortest-looking way from the middle of a JSON answer to its end, for answers that near their output limit.
//!
//! A search would be dear; a fixed preference is nearly as short: close what is open, else go on to the next demanded
//! member, with an empty string or a single digit where a value is due. Asks of single tokens whether they may come,
//! which takes microseconds; a mask over the whole vocabulary takes a thousand times as long.

use llguidance::Matcher;
use llguidance::toktrie::{SimpleVob, TokTrie};

/// Outside of strings, and within those of a pattern, in order of preference. Where a colon or a comma is due no quote
/// is, but within a pattern all three may be; `@`, `Z` and `.` lead to the end of addresses and of times.
const OUTSIDE: &[u8] = b"@}]\":,[{Z.0123456789ntf";

/// Tokens that a way out prefers.
#[derive(Debug, Default)]
pub(crate) struct Closers {
    quote: Option<u32>,
    /// Both may come only within strings.
    brackets: Vec<u32>,
    outside: Vec<u32>,
}

impl Closers {
    pub(crate) fn new(trie: &TokTrie) -> Self {
        let token = |byte: &u8| trie.token_id(&[*byte]);
        let tokens = |bytes: &[u8]| bytes.iter().filter_map(token).collect();
        Self { quote: token(&b'"'), brackets: tokens(b"}]"), outside: tokens(OUTSIDE) }
    }

    /// Tokens that complete the answer from where `matcher` is; `None` if `most` do not suffice. `ends` are those that
    /// end free texts.
    pub(crate) fn way_out(
        &self,
        matcher: &Matcher,
        ends: &[Vec<u32>],
        most: usize,
    ) -> Option<Vec<u32>> {
        let mut matcher = matcher.clone();
        let env = matcher.tok_env().ok()?;
        let mut way = Vec::new();
        while !matcher.is_stopped() && !matcher.is_accepting().ok()? {
            let next = self.next(&mut matcher, ends, env.tok_trie())?;
            if way.len() + next.len() > most {
                return None;
            }
            matcher.consume_tokens(&next).ok()?;
            way.extend(next);
        }
        (!matcher.is_error()).then_some(way)
    }

    /// What comes anyway, else what ends a text, else a closer, else the longest, which gets furthest through what is
    /// demanded.
    fn next(&self, matcher: &mut Matcher, ends: &[Vec<u32>], trie: &TokTrie) -> Option<Vec<u32>> {
        let forced = matcher.compute_ff_bytes();
        if !forced.contains(&TokTrie::SPECIAL_TOKEN_MARKER) {
            let tokens = trie.greedy_tokenize(&forced);
            if !tokens.is_empty() {
                return Some(tokens);
            }
        }
        for end in ends {
            if matcher.validate_tokens(end).ok()? == end.len() {
                return Some(end.clone());
            }
        }
        let mut may_come = |token: &u32| matcher.validate_tokens(&[*token]).is_ok_and(|n| n == 1);
        let in_string = self.brackets.len() > 1 && self.brackets.iter().all(&mut may_come);
        let preferred = if in_string { self.quote.as_slice() } else { &self.outside };
        if let Some(token) = preferred.iter().copied().find(may_come) {
            return Some(vec![token]);
        }
        longest(&matcher.compute_mask().ok()?, trie).map(|token| vec![token])
    }
}

fn longest(allowed: &SimpleVob, trie: &TokTrie) -> Option<u32> {
    let mut longest = None;
    for token in allowed.iter() {
        let length = trie.token_len(token);
        if longest.is_none_or(|(most, _)| length > most) {
            longest = Some((length, token));
        }
    }
    longest.map(|(_, token)| token)
}
