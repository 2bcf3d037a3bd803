//! Sampling parameters of one answer.

use serde::{Deserialize, Serialize};

use super::token::Token;

/// How one answer is sampled. The default is OpenAI's: the model's own distribution.
///
/// Order: bias and penalties, mask, temperature, min-p, top-k, top-p, each on what the ones before left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy; 1 samples from the model's own distribution.
    pub temperature: f32,
    /// Most tokens to choose among; 0: all.
    pub top_k: u32,
    /// Share of probability mass to sample from, greater than 0, at most 1.
    pub top_p: f32,
    /// Tokens less probable than this share of the most probable one are never chosen; 0: none.
    pub min_p: f32,
    /// Taken from a token's logit for each time it stands in the answer; 0: nothing.
    pub frequency_penalty: f32,
    /// Taken from the logit of each token that stands in the answer; 0: nothing.
    pub presence_penalty: f32,
    /// Divides positive logits, and multiplies negative ones, of each of the last 64 tokens of prompt and answer, as
    /// llama.cpp and Ollama do; 1: no change.
    pub repeat_penalty: f32,
    /// Tokens and what is added to their logits.
    pub logit_bias: Vec<(Token, f32)>,
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repeat_penalty: 1.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl Sampling {
    /// Whether earlier tokens change anything.
    #[expect(clippy::float_cmp, reason = "exactly these values mean: off")]
    pub fn looks_back(&self) -> bool {
        self.frequency_penalty != 0.0 || self.presence_penalty != 0.0 || self.repeat_penalty != 1.0
    }
}
