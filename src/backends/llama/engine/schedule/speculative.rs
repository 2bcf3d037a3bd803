//! Speculative decoding by prompt lookup: drafts repeat what followed the last tokens before. Pure.
//!
//! Drafts do not change answers: the model evaluates them with the next token in one batch, and
//! only tokens that it would have chosen are kept. Drafts that are often rejected cost time, so
//! they get shorter and pause.

use std::collections::HashMap;

use crate::backends::llama::wire::token::Token;

/// Length of the run that must have occurred before: shorter runs repeat by chance.
const RUN: usize = 3;
/// Length of the first draft.
const FIRST_GUESS: usize = 4;
/// Steps without a draft after a draft that was rejected entirely; doubles with each in a row, at
/// most this many times.
const PAUSE_STEPS: usize = 4;
const DOUBLINGS_MAX: u32 = 5;

/// Index over one prompt and its answer.
#[derive(Debug)]
pub(crate) struct Drafter {
    /// End of the last occurrence of each run.
    after: HashMap<[Token; RUN], usize>,
    /// Length of the indexed sequence.
    seen: usize,
    /// Current and maximum draft length.
    length: usize,
    most: usize,
    /// Steps until the next draft.
    pause: usize,
    misses: u32,
}

impl Drafter {
    /// Drafts have at most `most` tokens.
    pub(crate) fn new(most: usize) -> Self {
        let length = FIRST_GUESS.min(most);
        Self { after: HashMap::new(), seen: 0, length, most, pause: 0, misses: 0 }
    }

    /// A draft of at most `room` tokens that may follow `tokens`. Call once per step with the same
    /// sequence, grown by the answer.
    pub(crate) fn draft(&mut self, tokens: &[Token], room: usize) -> Vec<Token> {
        let before = self.look_up(tokens);
        if self.pause > 0 {
            self.pause -= 1;
            return Vec::new();
        }
        let Some(place) = before else { return Vec::new() };
        // The draft may reach the end of the known sequence and wraps around from there.
        let period = tokens.len() - place;
        (0..self.length.min(room)).map(|offset| tokens[place + offset % period]).collect()
    }

    /// Records that the first `held` of `drafted` tokens were accepted.
    pub(crate) fn learn(&mut self, drafted: usize, held: usize) {
        if held == 0 {
            self.length = (self.length / 2).max(1);
            self.pause = PAUSE_STEPS << self.misses.min(DOUBLINGS_MAX);
            self.misses += 1;
        } else {
            self.misses = 0;
            self.length = if held == drafted { self.length * 2 } else { held }.min(self.most);
        }
    }

    /// Indexes all runs of `tokens`; returns the previous end of the last one.
    fn look_up(&mut self, tokens: &[Token]) -> Option<usize> {
        let mut before = None;
        for end in (self.seen + 1).max(RUN)..=tokens.len() {
            if let Some(run) = tokens[..end].last_chunk::<RUN>() {
                before = self.after.insert(*run, end);
            }
        }
        self.seen = tokens.len();
        before
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_draft_repeats_the_latest_continuation() {
        let mut drafter = Drafter::new(8);
        assert!(drafter.draft(&[1, 2, 3, 4, 5, 9, 1, 2], 8).is_empty());
        assert_eq!(drafter.draft(&[1, 2, 3, 4, 5, 9, 1, 2, 3], 8), [4, 5, 9, 1]);
        assert!(drafter.draft(&[1, 2, 3, 4, 5, 9, 1, 2, 3, 7], 8).is_empty());
        assert_eq!(drafter.draft(&[1, 2, 3, 4, 5, 9, 1, 2, 3, 7, 1, 2, 3], 2), [7, 1]);
    }

    #[test]
    fn a_draft_wraps_around_in_a_loop() {
        let mut drafter = Drafter::new(4);
        assert_eq!(drafter.draft(&[5, 5, 5, 5], 9), [5, 5, 5, 5]);
        let mut drafter = Drafter::new(4);
        assert_eq!(drafter.draft(&[1, 2, 3, 1, 2, 3], 9), [1, 2, 3, 1]);
    }

    #[test]
    fn drafts_grow_while_accepted_and_pause_when_rejected() {
        let mut drafter = Drafter::new(8);
        let tokens = [5; 20];
        assert_eq!(drafter.draft(&tokens, 99).len(), 4);
        drafter.learn(4, 4);
        assert_eq!(drafter.draft(&tokens, 99).len(), 0, "no new token, no new run");
        let mut tokens = tokens.to_vec();
        let mut draft = |drafter: &mut Drafter| {
            tokens.push(5);
            drafter.draft(&tokens, 99).len()
        };
        assert_eq!(draft(&mut drafter), 8);
        drafter.learn(8, 3);
        assert_eq!(draft(&mut drafter), 3);
        for pause in [4, 8, 16] {
            drafter.learn(3, 0);
            assert!((0..pause).all(|_| draft(&mut drafter) == 0));
            assert_eq!(draft(&mut drafter), 1);
        }
        drafter.learn(1, 1);
        assert_eq!(draft(&mut drafter), 2);
    }

    proptest! {
        #[test]
        fn drafts_stay_within_their_bounds(
            answer in prop::collection::vec(0..3i32, 1..120),
            most in 1..12usize,
            room in 0..12usize,
            held in prop::collection::vec(0..12usize, 120),
        ) {
            let mut drafter = Drafter::new(most);
            for (end, held) in (1..=answer.len()).zip(held) {
                let draft = drafter.draft(&answer[..end], room);
                prop_assert!(draft.len() <= most.min(room));
                if !draft.is_empty() {
                    drafter.learn(draft.len(), held.min(draft.len()));
                }
            }
        }
    }
}
