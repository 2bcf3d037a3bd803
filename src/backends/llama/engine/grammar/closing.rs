//! A short path from the middle of a constrained answer to its end, for answers near their output
//! limit.
//!
//! A search would be expensive; a fixed preference is nearly as short: close what is open, else
//! continue with the next required member, with an empty string or a single digit as its value.
//! Validates single tokens, which takes microseconds; a mask over the whole vocabulary takes a
//! thousand times as long.

use llguidance::Matcher;
use llguidance::toktrie::{SimpleVob, TokTrie};

/// Preferred bytes outside of strings, and within strings of a pattern, in order. Where a colon or
/// a comma may come no quote may, but within a pattern all three may; `@`, `Z` and `.` lead to the
/// end of addresses and times.
const OUTSIDE: &[u8] = b"@}]\":,[{Z.0123456789ntf";

/// Masks over the whole vocabulary on one path: each takes up to some milliseconds, in which every
/// answer waits.
const MASKS_MAX: usize = 32;

/// The preferred tokens of a vocabulary.
#[derive(Debug, Default)]
pub(crate) struct Closers {
    quote: Option<u32>,
    /// Both are allowed at the same time only within strings.
    brackets: Vec<u32>,
    outside: Vec<u32>,
}

impl Closers {
    pub(crate) fn new(trie: &TokTrie) -> Self {
        let token = |byte: &u8| trie.token_id(&[*byte]);
        let tokens = |bytes: &[u8]| bytes.iter().filter_map(token).collect();
        Self { quote: token(&b'"'), brackets: tokens(b"}]"), outside: tokens(OUTSIDE) }
    }

    /// Tokens that complete the answer from the state of `matcher`; `None` if more than `most` are
    /// needed, or too many masks to find them. `ends` are the terminators of free texts.
    pub(crate) fn way_out(
        &self,
        matcher: &Matcher,
        ends: &[Vec<u32>],
        most: usize,
    ) -> Option<Vec<u32>> {
        let mut matcher = matcher.clone();
        let env = matcher.tok_env().ok()?;
        let (mut way, mut masks) = (Vec::new(), MASKS_MAX);
        while !matcher.is_stopped() && !matcher.is_accepting().ok()? {
            let next = self.next(&mut matcher, ends, env.tok_trie(), &mut masks)?;
            if way.len() + next.len() > most {
                return None;
            }
            matcher.consume_tokens(&next).ok()?;
            way.extend(next);
        }
        (!matcher.is_error()).then_some(way)
    }

    /// Forced bytes, else a terminator of a text, else a closer, else the longest token, which
    /// covers most of what is required.
    fn next(
        &self,
        matcher: &mut Matcher,
        ends: &[Vec<u32>],
        trie: &TokTrie,
        masks: &mut usize,
    ) -> Option<Vec<u32>> {
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
        *masks = masks.checked_sub(1)?;
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
