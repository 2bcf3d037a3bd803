//! One slot of the KV cache: what it holds, what it is asked for, and what of that is still to be evaluated. Pure.

use super::{Chunk, Phase, Token};
use crate::units::{AttemptId, MonotonicNs};

/// One sequence of the KV cache.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Prompt and answer so far, or what is left of them as cache.
    pub(super) tokens: Vec<Token>,
    /// How many of `tokens` are in the KV cache.
    pub(super) evaluated: usize,
    pub(super) work: Option<Work>,
    pub(super) admitted_at: u64,
    /// Guessed tokens: the last of `tokens` until they are evaluated, then what is left of them to compare with.
    pub(super) drafts: Vec<Token>,
}

#[derive(Debug)]
pub(super) struct Work {
    pub(super) attempt: AttemptId,
    pub(super) prompt_tokens: usize,
    /// Sequence length at which generation must end.
    pub(super) end: usize,
    pub(super) deadline: Option<MonotonicNs>,
    /// Who has, or will soon have, more of the prompt than this slot; until then nothing is evaluated here.
    pub(super) source: Option<Source>,
}

/// A slot that shares a prefix with another's prompt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) slot: usize,
    /// Of the sequence that was meant; the slot may be given to another.
    pub(super) admitted_at: u64,
    /// Length of the shared prefix.
    pub(super) tokens: usize,
}

impl Slot {
    /// Leading tokens of `prompt` that are already evaluated here; at least the last one is left to evaluate,
    /// because its logits yield the first token of the answer.
    pub(super) fn reusable(&self, prompt: &[Token]) -> usize {
        let common = common_prefix(&self.tokens[..self.evaluated], prompt);
        common.min(prompt.len().saturating_sub(1))
    }

    /// Everything that is left to evaluate, unless it will come from elsewhere.
    pub(super) fn pending(&self, index: usize) -> Option<Chunk> {
        let work = self.work.as_ref().filter(|work| work.source.is_none())?;
        let decoding = self.evaluated >= work.prompt_tokens;
        Some(Chunk {
            slot: index,
            attempt: work.attempt,
            start: self.evaluated,
            len: self.tokens.len() - self.evaluated,
            phase: if decoding { Phase::Decode } else { Phase::Prefill },
            completes: true,
            drafts: self.drafts.len(),
        })
    }
}

/// How many tokens two sequences begin with alike.
pub fn common_prefix(one: &[Token], other: &[Token]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
