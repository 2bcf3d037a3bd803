//! Sampling: from logits to the next token and its log-probabilities.

pub(super) mod logprobs;
pub(super) mod sampler;
pub(super) mod softmax;
pub(super) mod token_confidence;
