//! Wire formats of answers, one per API surface.

pub mod choices;
pub mod completions;
pub mod embeddings;
