//! Adequacy: the probability that a model's answer is good enough, by a trained, verified,
//! read-only model of text difficulty.
//!
//! `model` predicts, `file` reads, verifies and writes, `names` spells. Training is `crate::train`.

mod file;
mod model;
pub mod names;

pub use file::{AdequacyError, MODEL_FILE};
pub use model::{AdequacyModel, Head, Labelled, Predictions, logistic};
