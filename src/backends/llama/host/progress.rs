//! An answer as far as it has come, shared by the supervisor and the response stream.

use crate::backends::backend::{ErrorKind, TokenConfidence};
use crate::backends::llama::wire::logprobs::TokenLogprobs;
use crate::backends::llama::wire::outcome::Counts;
use crate::backends::llama::wire::piece::Piece;
use crate::openai::FinishReason;

/// An answer as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) admitted: bool,
    /// Turns left out so that the conversation fits.
    pub(super) dropped_turns: u32,
    /// One for each text embedded so far.
    pub(super) vectors: Vec<Vec<f32>>,
    pub(super) pieces: Vec<Piece>,
    /// Of the tokens of `pieces`, if they were asked for.
    pub(super) logprobs: Vec<TokenLogprobs>,
    /// Of the first tokens of the answer.
    pub(super) confidences: Vec<TokenConfidence>,
    pub(super) end: Option<Result<(FinishReason, Counts), ErrorKind>>,
}
