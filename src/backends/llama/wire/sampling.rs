//! Sampling parameters of one answer.

use serde::{Deserialize, Serialize};

use super::token::Token;

/// Sampling parameters. The default is OpenAI's: the model's own distribution.
///
/// Order: bias and penalties, mask, temperature, min-p, top-k, top-p; each applies to what the
/// previous ones leave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy; 1 samples from the model's own distribution.
    pub temperature: f32,
    /// Number of most probable tokens to choose from; 0 for all.
    pub top_k: u32,
    /// Share of probability mass to sample from, greater than 0, at most 1.
    pub top_p: f32,
    /// Excludes tokens below this share of the greatest probability; 0 excludes none.
    pub min_p: f32,
    /// Subtracted from a token's logit for each occurrence in the answer.
    pub frequency_penalty: f32,
    /// Subtracted from the logit of each token that occurs in the answer.
    pub presence_penalty: f32,
    /// Divides positive logits, and multiplies negative ones, of the last 64 tokens of prompt and
    /// answer, like llama.cpp and Ollama; 1 disables it.
    pub repeat_penalty: f32,
    /// Tokens and the values added to their logits.
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
    /// Whether earlier tokens have an effect.
    #[expect(clippy::float_cmp, reason = "exactly these values mean: off")]
    pub fn looks_back(&self) -> bool {
        self.frequency_penalty != 0.0 || self.presence_penalty != 0.0 || self.repeat_penalty != 1.0
    }
}
