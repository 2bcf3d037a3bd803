//! Prediction of the time to the first token of one model, from its own answers.
//!
//! Pure. A line through recent answers: a constant part, and a part per prompt token that is in no
//! cache.

/// Decay of earlier answers with each new one: about the last twenty count.
const MEMORY: f64 = 0.95;
/// Variance of prompt lengths, tokens squared, below which their effect is indistinguishable from
/// noise.
const LEAST_SPREAD: f64 = 1e4;

/// Timings of one model; no prediction before the first answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    /// Decayed sums over answers: number, prompt tokens, milliseconds, tokens², tokens ×
    /// milliseconds.
    count: f64,
    tokens: f64,
    ms: f64,
    tokens_squared: f64,
    tokens_ms: f64,
    /// Decayed number and sum of answer durations, milliseconds.
    answers: f64,
    sum_answer_ms: f64,
}

impl Latency {
    /// Records the time to the first token, `ms`, of an answer that did not queue, with `tokens` of
    /// its prompt computed.
    pub fn observe_first_token(&mut self, tokens: u64, ms: f64) {
        let tokens = tokens as f64;
        for (sum, new) in [
            (&mut self.count, 1.0),
            (&mut self.tokens, tokens),
            (&mut self.ms, ms),
            (&mut self.tokens_squared, tokens * tokens),
            (&mut self.tokens_ms, tokens * ms),
        ] {
            *sum = *sum * MEMORY + new;
        }
    }

    /// Records the time from first to last token, milliseconds.
    pub fn observe_answer(&mut self, ms: f64) {
        self.answers = self.answers * MEMORY + 1.0;
        self.sum_answer_ms = self.sum_answer_ms * MEMORY + ms;
    }

    /// Expected time from first to last token, milliseconds; `None` before the first answer.
    pub fn answer_ms(&self) -> Option<f64> {
        (self.answers > 0.0).then(|| self.sum_answer_ms / self.answers)
    }

    /// Expected milliseconds to the first token of a prompt of which `tokens` are in no cache,
    /// without a queue; `None` before the first answer.
    pub fn expected_ms(&self, tokens: u32) -> Option<f64> {
        if self.count == 0.0 {
            return None;
        }
        let (mean_tokens, mean_ms) = (self.tokens / self.count, self.ms / self.count);
        let spread = (self.tokens_squared / self.count - mean_tokens * mean_tokens).max(0.0);
        let together = self.tokens_ms / self.count - mean_tokens * mean_ms;
        // Shrunk towards 0 where prompts were all alike; a longer prompt is never predicted to be
        // faster.
        let per_token = (together / (spread + LEAST_SPREAD / self.count)).max(0.0);
        Some((mean_ms + per_token * (f64::from(tokens) - mean_tokens)).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_prediction_before_the_first_answer() {
        let mut latency = Latency::default();
        assert_eq!(latency.expected_ms(10), None);
        latency.observe_first_token(10, 200.0);
        assert_eq!(latency.expected_ms(5000), Some(200.0));
    }

    #[test]
    fn the_time_per_prompt_token_is_learned() {
        let mut latency = Latency::default();
        for turn in 0..60_u32 {
            let tokens = 100 + (turn % 7) * 300;
            latency.observe_first_token(tokens.into(), 50.0 + 2.0 * f64::from(tokens));
        }
        let expected = latency.expected_ms(3000).unwrap();
        assert!((expected - 6050.0).abs() < 60.0, "{expected}");
        // With the prompt in the cache only the constant part remains.
        let cached = latency.expected_ms(10).unwrap();
        assert!(cached < 120.0, "{cached}");
    }

    #[test]
    fn a_longer_prompt_is_never_predicted_to_be_faster() {
        let mut latency = Latency::default();
        for (tokens, ms) in [(1000, 10.0), (10, 1000.0), (2000, 5.0), (20, 900.0)] {
            latency.observe_first_token(tokens, ms);
        }
        let short = latency.expected_ms(10).unwrap();
        assert!(latency.expected_ms(4000).unwrap() >= short);
    }
}
