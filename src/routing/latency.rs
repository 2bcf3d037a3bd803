//! When an answer will begin: time to the first token of one model, from its own answers so far.
//!
//! Pure. A line through the last answers: what every answer waits, and what each prompt token adds that no cache holds.

/// What earlier answers count when a new one comes: about the last twenty do.
const MEMORY: f64 = 0.95;
/// Spread of prompt lengths, tokens squared, below which their effect cannot be told from noise.
const LEAST_SPREAD: f64 = 1e4;

/// Times of one model; nothing is known before the first answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    /// Decayed sums over answers: number, prompt tokens, milliseconds, tokens², tokens × milliseconds.
    count: f64,
    tokens: f64,
    ms: f64,
    tokens_squared: f64,
    tokens_ms: f64,
    /// Decayed number and sum of whole answers' milliseconds.
    answers: f64,
    sum_answer_ms: f64,
}

impl Latency {
    /// An answer that did not queue had its first token after `ms`, with `tokens` of its prompt computed.
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

    /// An answer took `ms` from its first token's work to its end.
    pub fn observe_answer(&mut self, ms: f64) {
        self.answers = self.answers * MEMORY + 1.0;
        self.sum_answer_ms = self.sum_answer_ms * MEMORY + ms;
    }

    /// How long answers take from their first token to their end, milliseconds.
    pub fn answer_ms(&self) -> Option<f64> {
        (self.answers > 0.0).then(|| self.sum_answer_ms / self.answers)
    }

    /// Milliseconds to the first token of a prompt of which `tokens` are in no cache, without a queue.
    pub fn expected_ms(&self, tokens: u32) -> Option<f64> {
        if self.count == 0.0 {
            return None;
        }
        let (mean_tokens, mean_ms) = (self.tokens / self.count, self.ms / self.count);
        let spread = (self.tokens_squared / self.count - mean_tokens * mean_tokens).max(0.0);
        let together = self.tokens_ms / self.count - mean_tokens * mean_ms;
        // Shrunk towards no effect where prompts were all alike; reading more never takes less time.
        let per_token = (together / (spread + LEAST_SPREAD / self.count)).max(0.0);
        Some((mean_ms + per_token * (f64::from(tokens) - mean_tokens)).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_known_before_the_first_answer() {
        let mut latency = Latency::default();
        assert_eq!(latency.expected_ms(10), None);
        latency.observe_first_token(10, 200.0);
        assert_eq!(latency.expected_ms(5000), Some(200.0));
    }

    #[test]
    fn the_price_of_a_prompt_token_is_learned() {
        let mut latency = Latency::default();
        for turn in 0..60_u32 {
            let tokens = 100 + (turn % 7) * 300;
            latency.observe_first_token(tokens.into(), 50.0 + 2.0 * f64::from(tokens));
        }
        let expected = latency.expected_ms(3000).unwrap();
        assert!((expected - 6050.0).abs() < 60.0, "{expected}");
        // A cache that holds the prompt leaves the fixed part.
        let cached = latency.expected_ms(10).unwrap();
        assert!(cached < 120.0, "{cached}");
    }

    #[test]
    fn longer_prompts_never_look_faster() {
        let mut latency = Latency::default();
        for (tokens, ms) in [(1000, 10.0), (10, 1000.0), (2000, 5.0), (20, 900.0)] {
            latency.observe_first_token(tokens, ms);
        }
        let short = latency.expected_ms(10).unwrap();
        assert!(latency.expected_ms(4000).unwrap() >= short);
    }
}
