//! Log-probabilities of the tokens of an answer, on request.
//!
//! Pure. Of the model's own distribution, before bias, penalties, mask and temperature.

use super::softmax::{Scored, greatest, leaders, mass};
use crate::backends::llama::wire::logprobs::{TokenLogprob, TokenLogprobs};
use crate::backends::llama::wire::token::Token;

/// Computes log-probabilities and holds those of unreleased text.
#[derive(Debug)]
pub(crate) struct Logprobs {
    /// Number of most probable tokens to report with each token.
    top: usize,
    /// Of tokens with unreleased text.
    pending: Vec<TokenLogprobs>,
    /// Reused buffer.
    leaders: Vec<Scored>,
}

impl Logprobs {
    pub(crate) fn new(top: usize) -> Self {
        Self { top, pending: Vec::new(), leaders: Vec::new() }
    }

    /// Records the token chosen from `logits`; `spell` returns a token's bytes.
    pub(crate) fn note(&mut self, logits: &[f32], token: usize, spell: impl Fn(Token) -> Vec<u8>) {
        let (most, _) = greatest(logits);
        let log_total = most + mass(logits, most, 1.0).ln();
        self.leaders.clear();
        if self.top > 0 {
            leaders(logits, self.top, f32::MIN, &mut self.leaders);
        }
        let reported = |logit: f32, token: usize| TokenLogprob {
            bytes: Token::try_from(token).map_or_else(|_| Vec::new(), &spell),
            logprob: logit - log_total,
        };
        let chosen = reported(logits.get(token).copied().unwrap_or(f32::MIN), token);
        let top = self.leaders.iter().map(|&(logit, token)| reported(logit, token)).collect();
        self.pending.push(TokenLogprobs { chosen, top });
    }

    /// Returns those of all tokens but the ones within the last `held` bytes of the output, which
    /// have not been released.
    ///
    /// A `last` release drops these: the stop string that ended the answer.
    pub(crate) fn release(&mut self, held: usize, last: bool) -> Vec<TokenLogprobs> {
        let mut behind = 0;
        let within = self.pending.iter().rev().take_while(|token| {
            behind += token.chosen.bytes.len();
            behind <= held
        });
        let kept = self.pending.len() - if held == 0 { 0 } else { within.count() };
        let rest = self.pending.split_off(kept);
        let pending = if last { Vec::new() } else { rest };
        std::mem::replace(&mut self.pending, pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spell(token: Token) -> Vec<u8> {
        format!("<{token}>").into_bytes()
    }

    #[test]
    fn logprobs_are_the_log_softmax_with_its_top_tokens() {
        let logits = [0.0, 2.0, 1.0, -1.0];
        let total: f32 = logits.iter().map(|logit: &f32| logit.exp()).sum();
        let mut logprobs = Logprobs::new(2);
        logprobs.note(&logits, 3, spell);
        let reported = logprobs.release(0, false);
        let near = |got: &TokenLogprob, token: Token, logit: f32| {
            got.bytes == spell(token) && (got.logprob - (logit - total.ln())).abs() < 1e-5
        };
        assert!(near(&reported[0].chosen, 3, -1.0), "{reported:?}");
        assert!(
            near(&reported[0].top[0], 1, 2.0) && near(&reported[0].top[1], 2, 1.0),
            "{reported:?}"
        );
        assert_eq!(reported[0].top.len(), 2);
        assert!(logprobs.release(0, false).is_empty());
    }

    #[test]
    fn logprobs_are_released_with_their_text_and_dropped_with_a_stop_string() {
        let mut logprobs = Logprobs::new(0);
        for token in 0..4 {
            logprobs.note(&[0.0; 4], token, spell);
        }
        // Three bytes a token.
        assert!(logprobs.release(12, false).is_empty(), "held back like the text");
        let tokens = |released: Vec<TokenLogprobs>| {
            released.into_iter().map(|token| token.chosen.bytes).collect::<Vec<_>>()
        };
        assert_eq!(tokens(logprobs.release(8, false)), [spell(0), spell(1)]);
        assert_eq!(tokens(logprobs.release(5, true)), [spell(2)]);
        assert!(logprobs.release(0, true).is_empty());
    }
}
