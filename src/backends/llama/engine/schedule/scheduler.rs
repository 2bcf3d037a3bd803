//! Continuous batching as a pure rule: slots and waiting requests in, the next batch out.
//!
//! No llama types, no clock, no I/O. Decode rows come first, then prefill chunks share the rest of the batch budget;
//! guesses of how an answer goes on are among its rows. A finished sequence stays in its slot as cache for the next
//! prompt that begins like it.

use super::batch::{Chunk, Phase};
use super::queue::Waiting;
use super::request::Request;
use super::slot::Slot;
use crate::backends::llama::wire::outcome::Rejection;
use crate::backends::llama::wire::token::Token;
use crate::units::{AttemptId, MonotonicNs};

/// What the engine can hold; all at least 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Sequences worked on at once.
    pub(crate) slots: usize,
    /// Longest prompt plus answer of one sequence, in tokens.
    pub(crate) context_tokens: usize,
    /// Most rows of one batch. At least `slots`, so that every sequence advances in every step.
    pub(crate) batch_tokens: usize,
    /// Requests that may wait for a slot.
    pub(crate) queue: usize,
}

/// What cancelling found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancelled {
    Waiting,
    Running { slot: usize },
    Unknown,
}

/// The scheduler's whole state.
#[derive(Debug)]
pub(crate) struct Scheduler {
    pub(super) limits: Limits,
    pub(super) slots: Vec<Slot>,
    pub(super) waiting: Waiting,
    /// Counts admissions, to find the slot whose cache is the oldest.
    pub(super) admissions: u64,
}

impl Scheduler {
    pub(crate) fn new(limits: Limits) -> Self {
        debug_assert!(limits.batch_tokens >= limits.slots, "every sequence must fit into a batch");
        let slots = (0..limits.slots).map(|_| Slot::default()).collect();
        Self { limits, slots, waiting: Waiting::default(), admissions: 0 }
    }

    /// Queues a request.
    pub(crate) fn submit(&mut self, request: Request) -> Result<(), Rejection> {
        let (prompt, context) = (request.prompt.len(), self.limits.context_tokens);
        if prompt == 0 {
            return Err(Rejection::EmptyPrompt);
        }
        if prompt >= context {
            let count = |tokens| u32::try_from(tokens).unwrap_or(u32::MAX);
            return Err(Rejection::ContextExceeded {
                prompt_tokens: count(prompt),
                context_tokens: count(context),
            });
        }
        let idle = self.slots.iter().filter(|slot| slot.work.is_none()).count();
        if self.waiting.len() >= self.limits.queue + idle {
            return Err(Rejection::QueueFull);
        }
        self.waiting.push(request);
        Ok(())
    }

    /// The prompt that the slot works on, and what it has answered so far.
    pub(crate) fn prompt(&self, slot: usize) -> &[Token] {
        &self.slots[slot].tokens
    }

    /// The slots whose answers get their next token with the next batch.
    pub(crate) fn answering(&self) -> Vec<(usize, AttemptId)> {
        let pending = self.slots.iter().enumerate().filter_map(|(index, slot)| slot.pending(index));
        let decodes = pending.filter(|chunk| chunk.phase == Phase::Decode);
        decodes.map(|chunk| (chunk.slot, chunk.attempt)).collect()
    }

    /// Adds a guess how the slot's answer goes on to the next batch, as far as it has room and use for it: every slot
    /// keeps its row, and the last token of an answer is never evaluated. Call once a step and slot, after
    /// [`Self::answering`] named it.
    pub(crate) fn propose(&mut self, slot: usize, guess: &[Token]) {
        let drafted: usize = self.slots.iter().map(|slot| slot.drafts.len()).sum();
        let rows = self.limits.batch_tokens.saturating_sub(self.slots.len() + drafted);
        let slot = &mut self.slots[slot];
        let Some(work) = &slot.work else { return };
        let useful = work.end.saturating_sub(slot.tokens.len() + 1);
        slot.drafts = guess[..guess.len().min(rows).min(useful)].to_vec();
        slot.tokens.extend_from_slice(&slot.drafts);
    }

    /// Whether the next token's logits are there already: the last token was guessed and evaluated.
    pub(crate) fn is_ahead(&self, slot: usize) -> bool {
        let slot = &self.slots[slot];
        slot.work.is_some() && slot.evaluated == slot.tokens.len()
    }

    /// How much of its sequence the slot has in the KV cache; what lies there behind it is of guesses that failed.
    pub(crate) fn kept(&self, slot: usize) -> usize {
        self.slots[slot].evaluated
    }

    /// The next batch, in slot order (llama.cpp evaluates consecutive sequence ids together); empty when idle.
    ///
    /// Each decoding sequence gets its one row. The rest of the budget, at most what `prompt_rows` says for the
    /// number of decode rows, is shared among prefills, the shortest first, so that a long prompt never keeps a
    /// short one from starting. Each gets at least one row.
    pub(crate) fn next_batch(&self, prompt_rows: impl Fn(usize) -> usize) -> Vec<Chunk> {
        let mut batch: Vec<Chunk> =
            self.slots.iter().enumerate().filter_map(|(index, slot)| slot.pending(index)).collect();
        let decodes: usize =
            batch.iter().filter(|chunk| chunk.phase == Phase::Decode).map(|chunk| chunk.len).sum();
        let mut prefills: Vec<&mut Chunk> =
            batch.iter_mut().filter(|chunk| chunk.phase == Phase::Prefill).collect();
        prefills.sort_by_key(|chunk| chunk.len);
        let count = prefills.len();
        // There are never more chunks than slots, and a batch has room for one row of each.
        let mut budget = (self.limits.batch_tokens - decodes).min(prompt_rows(decodes).max(count));
        for (served, chunk) in prefills.into_iter().enumerate() {
            let share = budget / (count - served);
            if chunk.len > share {
                chunk.len = share;
                chunk.completes = false;
            }
            budget -= chunk.len;
        }
        batch
    }

    /// The tokens a chunk evaluates.
    pub(crate) fn tokens(&self, chunk: &Chunk) -> &[Token] {
        &self.slots[chunk.slot].tokens[chunk.start..chunk.start + chunk.len]
    }

    /// The batch was evaluated: its tokens are in the KV cache now.
    pub(crate) fn evaluated(&mut self, batch: &[Chunk]) {
        for chunk in batch {
            let slot = &mut self.slots[chunk.slot];
            slot.evaluated = chunk.start + chunk.len - chunk.drafts;
            if chunk.drafts > 0 {
                slot.tokens.truncate(slot.evaluated);
            }
        }
    }

    /// Appends a sampled token. Returns whether the sequence may go on; if not, it reached its output limit or
    /// its context.
    pub(crate) fn push(&mut self, slot: usize, token: Token) -> bool {
        let slot = &mut self.slots[slot];
        slot.tokens.push(token);
        if slot.drafts.first() == Some(&token) {
            slot.drafts.remove(0);
            slot.evaluated += 1;
        } else {
            slot.drafts.clear();
        }
        slot.work.as_ref().is_some_and(|work| slot.tokens.len() < work.end)
    }

    /// Ends the slot's work and keeps what was evaluated as cache.
    pub(crate) fn release(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        slot.tokens.truncate(slot.evaluated);
        slot.drafts.clear();
        slot.work = None;
    }

    /// Forgets an attempt, wherever it is. Its slot is idle at once.
    pub(crate) fn cancel(&mut self, attempt: AttemptId) -> Cancelled {
        if self.waiting.remove(attempt) {
            return Cancelled::Waiting;
        }
        let holds = |slot: &Slot| slot.work.as_ref().is_some_and(|work| work.attempt == attempt);
        match self.slots.iter().position(holds) {
            Some(slot) => {
                self.release(slot);
                Cancelled::Running { slot }
            }
            None => Cancelled::Unknown,
        }
    }

    /// Ends everything whose deadline has come, waiting or running.
    pub(crate) fn expire(&mut self, now: MonotonicNs) -> Vec<AttemptId> {
        let mut expired = self.waiting.expire(now);
        for slot in 0..self.slots.len() {
            let work = self.slots[slot].work.as_ref();
            if let Some(late) = work.filter(|work| work.deadline.is_some_and(|at| at <= now)) {
                expired.push(late.attempt);
                self.release(slot);
            }
        }
        expired
    }
}

#[cfg(test)]
mod tests;
