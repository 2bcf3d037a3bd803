//! The parts of a batch: consecutive tokens of one sequence each.

use crate::units::AttemptId;

/// Consecutive tokens of one sequence to evaluate in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) slot: usize,
    pub(crate) attempt: AttemptId,
    /// Position of the first token in its sequence.
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) kind: ChunkKind,
    /// The sequence is fully evaluated after this chunk: its last row yields the next token.
    pub(crate) completes: bool,
    /// Number of trailing draft rows; the row before the first of them, and each accepted one,
    /// yields the next token.
    pub(crate) drafts: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkKind {
    Prefill,
    Decode,
}
