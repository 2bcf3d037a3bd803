//! Token ids, as llama.cpp counts them.

/// An index into the model's vocabulary.
pub type Token = i32;
