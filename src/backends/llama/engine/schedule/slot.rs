//! One slot of the KV cache: its sequence, its attempt, and the tokens left to evaluate. Pure.

use super::batch::{Chunk, ChunkKind};
use crate::backends::llama::wire::token::Token;
use crate::units::{AttemptId, MonotonicNs};

/// One sequence of the KV cache.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Prompt and answer so far, or the part kept as cache.
    pub(crate) tokens: Vec<Token>,
    /// Number of leading `tokens` in the KV cache.
    pub(crate) evaluated: usize,
    pub(crate) assignment: Option<Assignment>,
    pub(crate) admitted_at: u64,
    /// Draft tokens: the end of `tokens` until they are evaluated, then the rest to compare with.
    pub(crate) drafts: Vec<Token>,
}

#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) attempt: AttemptId,
    pub(crate) prompt_tokens: usize,
    /// Sequence length at which generation ends.
    pub(crate) end: usize,
    pub(crate) deadline: Option<MonotonicNs>,
    /// Steps since its prompt last got its even share of the rows.
    pub(crate) overtaken: u32,
    /// Slot with a longer prefix of the prompt, present or pending; until it is copied, nothing is
    /// evaluated here.
    pub(crate) source: Option<PrefixSource>,
}

/// A slot that shares a prefix with this slot's prompt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PrefixSource {
    pub(crate) slot: usize,
    /// Identifies the sequence; the slot may have been reassigned.
    pub(crate) admitted_at: u64,
    /// Length of the shared prefix.
    pub(crate) tokens: usize,
}

impl Slot {
    /// Length of the evaluated prefix of `prompt`. Excludes the last token, whose logits yield the
    /// first token of the answer.
    pub(crate) fn reusable(&self, prompt: &[Token]) -> usize {
        let common = common_prefix(&self.tokens[..self.evaluated], prompt);
        common.min(prompt.len().saturating_sub(1))
    }

    /// All tokens left to evaluate; `None` while the slot waits for a prefix.
    pub(crate) fn pending(&self, index: usize) -> Option<Chunk> {
        let assignment =
            self.assignment.as_ref().filter(|assignment| assignment.source.is_none())?;
        let decoding = self.evaluated >= assignment.prompt_tokens;
        Some(Chunk {
            slot: index,
            attempt: assignment.attempt,
            start: self.evaluated,
            len: self.tokens.len() - self.evaluated,
            kind: if decoding { ChunkKind::Decode } else { ChunkKind::Prefill },
            completes: true,
            drafts: self.drafts.len(),
        })
    }
}

/// Length of the common prefix.
pub(crate) fn common_prefix(one: &[Token], other: &[Token]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
