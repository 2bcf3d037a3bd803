//! Host-memory cache of sequences that lost their slot, within a byte budget.
//!
//! Pure: the generator moves the states between llama.cpp and this cache.

use std::collections::VecDeque;

use super::slot::common_prefix;
use crate::backends::llama::wire::token::Token;

/// Displaced sequences, least recently used first.
#[derive(Debug)]
pub(crate) struct HostCache<S> {
    entries: VecDeque<Entry<S>>,
    bytes: usize,
    budget: usize,
}

/// One sequence and its saved state.
#[derive(Debug)]
pub(crate) struct Entry<S> {
    pub(crate) tokens: Vec<Token>,
    pub(crate) state: S,
    /// Size of `state`.
    pub(crate) bytes: usize,
}

impl<S> HostCache<S> {
    /// A budget of 0 bytes disables the cache.
    pub(crate) fn new(budget: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, budget }
    }

    /// Whether saving the state of `tokens` is useful: there is a budget, and no entry begins with
    /// them.
    pub(crate) fn wants(&self, tokens: &[Token]) -> bool {
        self.budget > 0 && !self.entries.iter().any(|entry| entry.tokens.starts_with(tokens))
    }

    /// Stores a sequence as the most recently used; replaces entries that it continues.
    pub(crate) fn put(&mut self, entry: Entry<S>) {
        self.drop_where(|kept| entry.tokens.starts_with(&kept.tokens));
        self.bytes += entry.bytes;
        self.entries.push_back(entry);
        while self.bytes > self.budget
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.bytes;
        }
    }

    /// Removes and returns the entry with the longest prefix of `prompt`, if it has more than
    /// `more_than` tokens of it, with that length. The caller puts back an entry that the prompt
    /// uses only in part.
    pub(crate) fn take(&mut self, prompt: &[Token], more_than: usize) -> Option<(Entry<S>, usize)> {
        let common = |entry: &Entry<S>| common_prefix(&entry.tokens, prompt);
        let (index, tokens) = self
            .entries
            .iter()
            .map(common)
            .enumerate()
            .filter(|&(_, tokens)| tokens > more_than)
            .max_by_key(|&(_, tokens)| tokens)?;
        let entry = self.entries.remove(index)?;
        self.bytes -= entry.bytes;
        Some((entry, tokens))
    }

    fn drop_where(&mut self, superseded: impl Fn(&Entry<S>) -> bool) {
        let bytes = &mut self.bytes;
        self.entries.retain(|entry| {
            let goes = superseded(entry);
            *bytes -= if goes { entry.bytes } else { 0 };
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(tokens: &[Token], bytes: usize) -> Entry<&'static str> {
        Entry { tokens: tokens.to_vec(), state: "kv", bytes }
    }

    #[test]
    fn the_longest_match_is_taken_and_only_if_it_is_long_enough() {
        let mut cache = HostCache::new(100);
        cache.put(entry(&[1, 2, 3], 10));
        cache.put(entry(&[1, 2, 9, 9], 10));
        assert!(cache.take(&[1, 2, 3, 4], 3).is_none());
        let (found, tokens) = cache.take(&[1, 2, 3, 4], 2).unwrap();
        assert_eq!((found.tokens, tokens), (vec![1, 2, 3], 3));
        assert_eq!(cache.take(&[1, 2, 3, 4], 1).unwrap().1, 2);
        assert!(cache.take(&[1, 2, 3, 4], 0).is_none());
    }

    #[test]
    fn a_longer_version_replaces_a_shorter_one() {
        let mut cache = HostCache::new(100);
        cache.put(entry(&[1, 2], 10));
        assert!(!cache.wants(&[1, 2]) && !cache.wants(&[1]) && cache.wants(&[1, 2, 3]));
        cache.put(entry(&[1, 2, 3], 20));
        assert_eq!((cache.entries.len(), cache.bytes), (1, 20));
    }

    #[test]
    fn without_a_budget_nothing_is_stored() {
        assert!(!HostCache::<()>::new(0).wants(&[1]));
    }

    proptest! {
        /// The budget holds after every operation, byte counts are right, and the least recently
        /// used entry goes first.
        #[test]
        fn the_budget_is_never_exceeded(
            puts in prop::collection::vec((prop::collection::vec(0..3i32, 1..6), 1..50usize), 1..40),
        ) {
            let mut cache = HostCache::new(100);
            for (tokens, bytes) in puts {
                cache.put(entry(&tokens, bytes));
                let sum: usize = cache.entries.iter().map(|entry| entry.bytes).sum();
                prop_assert!(sum == cache.bytes && sum <= 100);
                prop_assert_eq!(&cache.entries.back().unwrap().tokens, &tokens);
            }
        }
    }
}
