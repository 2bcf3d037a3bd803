//! Log-probabilities of an answer's tokens, in non-streamed answers and in chunks.

use serde::Serialize;

/// `logprobs` of one choice.
#[derive(Debug, Serialize)]
pub struct ChoiceLogprobs {
    pub content: Vec<TokenLogprob>,
    /// Always `None`: local models have no separate refusals.
    pub refusal: Option<()>,
}

/// One token of the answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenLogprob {
    #[serde(flatten)]
    pub chosen: RankedToken,
    /// The most probable tokens at this position, most probable first.
    pub top_logprobs: Vec<RankedToken>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankedToken {
    /// Text of the token; incomplete UTF-8 is replaced.
    pub token: String,
    /// Natural logarithm of its probability, at most 0.
    pub logprob: f32,
    pub bytes: Vec<u8>,
}
