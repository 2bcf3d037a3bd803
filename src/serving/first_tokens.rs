//! First tokens of a local answer: their confidences, and whether enough of them have come to
//! assess it. Pure.

use crate::backends::Event;
use crate::routing::Signals;
use crate::routing::signals::TokenSight;

/// The first tokens of one answer.
#[derive(Debug)]
pub struct FirstTokens {
    /// Tokens to look at.
    limit: usize,
    tokens: Vec<TokenSight>,
    /// Their text, and maybe a little more.
    text: String,
    /// The answer ended before the limit.
    complete: bool,
}

impl FirstTokens {
    pub fn new(limit: u32) -> Self {
        Self { limit: limit as usize, tokens: Vec::new(), text: String::new(), complete: false }
    }

    pub fn observe(&mut self, event: &Event) {
        if self.is_complete() {
            return;
        }
        match event {
            Event::Confidence(tokens) => {
                let left = self.limit - self.tokens.len();
                let sight = tokens.iter().take(left);
                self.tokens.extend(
                    sight
                        .map(|token| TokenSight { logprob: token.logprob, entropy: token.entropy }),
                );
            }
            Event::Text(text) => self.text.push_str(text),
            Event::Done(_) => self.complete = true,
            _ => {}
        }
    }

    /// Whether more of the answer would change nothing.
    pub fn is_complete(&self) -> bool {
        self.complete || self.tokens.len() >= self.limit
    }

    /// `None` where no token's probability is known.
    pub fn signals(&self) -> Option<Signals> {
        Signals::of(&self.tokens, &self.text, self.complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::TokenConfidence;
    use crate::openai::FinishReason;

    #[test]
    fn exactly_the_first_tokens_count_however_they_come() {
        let tokens: Vec<TokenConfidence> = (0_u8..10)
            .map(|i| TokenConfidence { logprob: -f32::from(i), entropy: f32::from(i) })
            .collect();
        let signals = |cut: usize| {
            let mut first = FirstTokens::new(4);
            for piece in tokens.chunks(cut) {
                first.observe(&Event::Confidence(piece.to_vec()));
            }
            first.observe(&Event::Done(FinishReason::Stop));
            first.signals().unwrap()
        };
        assert_eq!((signals(1).tokens, signals(1).mean_logprob), (4, -1.5));
        assert_eq!(signals(1), signals(7));
        assert!(!signals(3).complete);
    }

    #[test]
    fn a_short_answer_is_judged_whole() {
        let mut first = FirstTokens::new(32);
        first.observe(&Event::Confidence(vec![TokenConfidence { logprob: -0.1, entropy: 0.2 }]));
        first.observe(&Event::Text("Yes.".into()));
        assert!(!first.is_complete());
        first.observe(&Event::Done(FinishReason::Stop));
        assert!(first.is_complete() && first.signals().unwrap().complete);
    }
}
