//! Signals in the first tokens of an answer: the model's own probabilities, and signs in the text.
//!
//! Pure functions over log-probabilities and text; `confidence` scores the signals.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

/// Probabilities of one generated token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenSight {
    /// Natural logarithm of the token's probability, at most 0.
    pub logprob: f32,
    /// Entropy of the distribution it was drawn from, nats, at least 0.
    pub entropy: f32,
}

/// Signals of the first tokens of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Signals {
    pub tokens: u32,
    /// Nats, at most 0.
    pub mean_logprob: f64,
    pub min_logprob: f64,
    /// Nats, at least 0.
    pub mean_entropy: f64,
    /// The text declines to answer or admits not to know.
    pub refusal: bool,
    /// Share of the word triples that repeat an earlier one, 0 to 1.
    pub repetition: f64,
    /// The answer ended within the window.
    pub complete: bool,
}

impl Signals {
    /// `None` without a token.
    pub fn of(tokens: &[TokenSight], text: &str, complete: bool) -> Option<Self> {
        if tokens.is_empty() {
            return None;
        }
        let mean = |of: fn(&TokenSight) -> f32| {
            tokens.iter().map(|token| f64::from(of(token))).sum::<f64>() / tokens.len() as f64
        };
        let least = tokens.iter().map(|token| token.logprob).fold(0.0, f32::min);
        Some(Self {
            tokens: u32::try_from(tokens.len()).unwrap_or(u32::MAX),
            mean_logprob: mean(|token| token.logprob),
            min_logprob: f64::from(least),
            mean_entropy: mean(|token| token.entropy),
            refusal: is_refusal(text),
            repetition: repetition(text),
            complete,
        })
    }
}

/// Beginnings of refusals and of admissions of ignorance, in lower case. Only the beginning of an
/// answer counts: a long one may quote them.
const REFUSALS: [&str; 12] = [
    "i'm sorry",
    "i am sorry",
    "sorry, ",
    "i cannot",
    "i can't",
    "i can not",
    "i'm unable",
    "i am unable",
    "i'm not able",
    "i don't know",
    "i do not know",
    "as an ai",
];
const REFUSAL_WITHIN_BYTES: usize = 80;

fn is_refusal(text: &str) -> bool {
    let lower = text.to_lowercase().replace('\u{2019}', "'");
    REFUSALS.iter().any(|sign| lower.find(sign).is_some_and(|at| at < REFUSAL_WITHIN_BYTES))
}

fn repetition(text: &str) -> f64 {
    let words: Vec<&str> = text.split_whitespace().collect();
    let triples = words.windows(3);
    let all = triples.len();
    if all == 0 {
        return 0.0;
    }
    let distinct = triples.collect::<HashSet<_>>().len();
    (all - distinct) as f64 / all as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_summarise_token_probabilities_and_text() {
        let token = |logprob, entropy| TokenSight { logprob, entropy };
        let sight = [token(-0.5, 1.0), token(-1.5, 2.0)];
        let found = Signals::of(&sight, "I\u{2019}m sorry, but I cannot help", false).unwrap();
        assert_eq!((found.tokens, found.refusal, found.complete), (2, true, false));
        let numbers = [found.mean_logprob, found.min_logprob, found.mean_entropy, found.repetition];
        assert_eq!(format!("{numbers:?}"), "[-1.0, -1.5, 1.5, 0.0]");
        assert_eq!(Signals::of(&[], "text", true), None);
        let again = Signals::of(&sight, "a b c a b c a b c", true).unwrap();
        assert!((again.repetition - 4.0 / 7.0).abs() < 1e-9, "{again:?}");
        let quoting = format!("{} i'm sorry", "word ".repeat(30));
        assert!(!is_refusal(&quoting) && !is_refusal("Paris."));
    }
}
