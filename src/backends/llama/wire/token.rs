//! Token ids, in llama.cpp's type.

/// Index into the model's vocabulary.
pub type Token = i32;
