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
const DOUBLINGS_MOST: u32 = 5;

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
    pub(crate) fn guess(&mut self, tokens: &[Token], room: usize) -> Vec<Token> {
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

    /// Records that the first `held` of `guessed` tokens were accepted.
    pub(crate) fn learn(&mut self, guessed: usize, held: usize) {
        if held == 0 {
            self.length = (self.length / 2).max(1);
            self.pause = PAUSE_STEPS << self.misses.min(DOUBLINGS_MOST);
            self.misses += 1;
        } else {
            self.misses = 0;
            self.length = if held == guessed { self.length * 2 } else { held }.min(self.most);
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
    fn what_followed_before_is_guessed_again_the_latest_time_first() {
        let mut drafter = Drafter::new(8);
        assert!(drafter.guess(&[1, 2, 3, 4, 5, 9, 1, 2], 8).is_empty());
        assert_eq!(drafter.guess(&[1, 2, 3, 4, 5, 9, 1, 2, 3], 8), [4, 5, 9, 1]);
        assert!(drafter.guess(&[1, 2, 3, 4, 5, 9, 1, 2, 3, 7], 8).is_empty());
        assert_eq!(drafter.guess(&[1, 2, 3, 4, 5, 9, 1, 2, 3, 7, 1, 2, 3], 2), [7, 1]);
    }

    #[test]
    fn a_loop_is_guessed_round_and_round() {
        let mut drafter = Drafter::new(4);
        assert_eq!(drafter.guess(&[5, 5, 5, 5], 9), [5, 5, 5, 5]);
        let mut drafter = Drafter::new(4);
        assert_eq!(drafter.guess(&[1, 2, 3, 1, 2, 3], 9), [1, 2, 3, 1]);
    }

    #[test]
    fn guesses_grow_while_they_hold_and_pause_when_they_do_not() {
        let mut drafter = Drafter::new(8);
        let tokens = [5; 20];
        assert_eq!(drafter.guess(&tokens, 99).len(), 4);
        drafter.learn(4, 4);
        assert_eq!(drafter.guess(&tokens, 99).len(), 0, "no new token, no new run");
        let mut tokens = tokens.to_vec();
        let mut guess = |drafter: &mut Drafter| {
            tokens.push(5);
            drafter.guess(&tokens, 99).len()
        };
        assert_eq!(guess(&mut drafter), 8);
        drafter.learn(8, 3);
        assert_eq!(guess(&mut drafter), 3);
        for pause in [4, 8, 16] {
            drafter.learn(3, 0);
            assert!((0..pause).all(|_| guess(&mut drafter) == 0));
            assert_eq!(guess(&mut drafter), 1);
        }
        drafter.learn(1, 1);
        assert_eq!(guess(&mut drafter), 2);
    }

    proptest! {
        #[test]
        fn guesses_keep_their_bounds_whatever_comes(
            answer in prop::collection::vec(0..3i32, 1..120),
            most in 1..12usize,
            room in 0..12usize,
            held in prop::collection::vec(0..12usize, 120),
        ) {
            let mut drafter = Drafter::new(most);
            for (end, held) in (1..=answer.len()).zip(held) {
                let guess = drafter.guess(&answer[..end], room);
                prop_assert!(guess.len() <= most.min(room));
                if !guess.is_empty() {
                    drafter.learn(guess.len(), held.min(guess.len()));
                }
            }
        }
    }
}
