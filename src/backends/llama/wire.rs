//! The frames between gateway and engine process, and the types in them. Plain data: no runtime, no
//! llama.cpp.

pub mod constraint;
pub mod conversation;
pub mod cpu;
pub mod logprobs;
pub mod outcome;
pub mod piece;
pub mod protocol;
pub mod reasoning;
pub mod sampling;
pub mod settings;
pub mod step;
pub mod token;
