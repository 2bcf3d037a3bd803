//! From logits to the next token, and what the distribution says about it.

pub(super) mod logprobs;
pub(super) mod sampler;
pub(super) mod softmax;
pub(super) mod token_confidence;
