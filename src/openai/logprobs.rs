//! Log-probabilities of an answer's tokens, in whole answers and in chunks.

use serde::Serialize;

/// `logprobs` of one choice.
#[derive(Debug, Serialize)]
pub struct ChoiceLogprobs {
    pub content: Vec<TokenLogprob>,
    /// Local models have no refusals apart from their text.
    pub refusal: Option<()>,
}

/// One token of the answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenLogprob {
    #[serde(flatten)]
    pub chosen: RankedToken,
    /// The most probable tokens in its place, the most probable first.
    pub top_logprobs: Vec<RankedToken>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankedToken {
    /// Its text; bytes that are only a part of a character are replaced.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    pub bytes: Vec<u8>,
}
