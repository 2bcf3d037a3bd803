//! One slot of the KV cache: what it holds, what it is asked for, and what of that is still to be evaluated. Pure.

use super::batch::{Chunk, Phase};
use crate::backends::llama::wire::token::Token;
use crate::units::{AttemptId, MonotonicNs};

/// One sequence of the KV cache.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Prompt and answer so far, or what is left of them as cache.
    pub(crate) tokens: Vec<Token>,
    /// How many of `tokens` are in the KV cache.
    pub(crate) evaluated: usize,
    pub(crate) work: Option<Work>,
    pub(crate) admitted_at: u64,
    /// Guessed tokens: the last of `tokens` until they are evaluated, then what is left of them to compare with.
    pub(crate) drafts: Vec<Token>,
}

#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) attempt: AttemptId,
    pub(crate) prompt_tokens: usize,
    /// Sequence length at which generation must end.
    pub(crate) end: usize,
    pub(crate) deadline: Option<MonotonicNs>,
    /// Who has, or will soon have, more of the prompt than this slot; until then nothing is evaluated here.
    pub(crate) source: Option<Source>,
}

/// A slot that shares a prefix with another's prompt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub(crate) slot: usize,
    /// Of the sequence that was meant; the slot may be given to another.
    pub(crate) admitted_at: u64,
    /// Length of the shared prefix.
    pub(crate) tokens: usize,
}

impl Slot {
    /// Leading tokens of `prompt` that are already evaluated here; at least the last one is left to evaluate,
    /// because its logits yield the first token of the answer.
    pub(crate) fn reusable(&self, prompt: &[Token]) -> usize {
        let common = common_prefix(&self.tokens[..self.evaluated], prompt);
        common.min(prompt.len().saturating_sub(1))
    }

    /// Everything that is left to evaluate, unless it will come from elsewhere.
    pub(crate) fn pending(&self, index: usize) -> Option<Chunk> {
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
pub(crate) fn common_prefix(one: &[Token], other: &[Token]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
