//! Continuous batching as a pure function: slots and queued requests in, the next batch out.
//!
//! Pure: no llama types, no clock, no I/O. Decode rows, with drafts among them, come first; prefill
//! chunks share the rest of the batch budget. A finished sequence stays in its slot as cache for
//! the next prompt with the same prefix.

use super::batch::{Chunk, ChunkKind};
use super::prefill_shares::{self, Reading};
use super::queue::Queue;
use super::request::Request;
use super::slot::Slot;
use crate::backends::llama::wire::outcome::Rejection;
use crate::backends::llama::wire::token::Token;
use crate::units::{AttemptId, MonotonicNs};

/// Capacity of the engine; all at least 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Sequences evaluated at the same time.
    pub(crate) slots: usize,
    /// Maximum length of prompt plus answer of one sequence, in tokens.
    pub(crate) context_tokens: usize,
    /// Maximum rows of one batch. At least `slots`, so that every sequence advances in every step.
    pub(crate) batch_tokens: usize,
    /// Maximum queued requests without a slot.
    pub(crate) queue: usize,
}

/// State of an attempt when it was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancelled {
    Waiting,
    Running { slot: usize },
    Unknown,
}

/// Slots and queue of one engine.
#[derive(Debug)]
pub(crate) struct Scheduler {
    pub(super) limits: Limits,
    pub(super) slots: Vec<Slot>,
    pub(super) queue: Queue,
    /// Number of admissions, which orders slots by age of their cache.
    pub(super) admissions: u64,
    /// Whether a prompt may begin with what a slot holds.
    pub(super) reuses_prefixes: bool,
}

impl Scheduler {
    pub(crate) fn new(limits: Limits) -> Self {
        debug_assert!(limits.batch_tokens >= limits.slots, "every sequence must fit into a batch");
        let slots = (0..limits.slots).map(|_| Slot::default()).collect();
        Self { limits, slots, queue: Queue::default(), admissions: 0, reuses_prefixes: true }
    }

    /// Sets whether a prompt may begin with what a slot holds.
    #[must_use]
    pub(crate) fn reusing_prefixes(mut self, reuses: bool) -> Self {
        self.reuses_prefixes = reuses;
        self
    }

    /// Whether the prompt may be evaluated.
    pub(crate) fn check(&self, request: &Request) -> Result<(), Rejection> {
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
        Ok(())
    }

    /// Queues a request.
    pub(crate) fn submit(&mut self, request: Request) -> Result<(), Rejection> {
        self.check(&request)?;
        let idle = self.slots.iter().filter(|slot| slot.assignment.is_none()).count();
        if self.queue.len() >= self.limits.queue + idle {
            return Err(Rejection::QueueFull);
        }
        self.queue.push(request);
        Ok(())
    }

    /// Prompt and answer so far of the slot's sequence.
    pub(crate) fn prompt(&self, slot: usize) -> &[Token] {
        &self.slots[slot].tokens
    }

    /// The slots that decode in the next batch.
    pub(crate) fn answering(&self) -> Vec<(usize, AttemptId)> {
        let pending = self.slots.iter().enumerate().filter_map(|(index, slot)| slot.pending(index));
        let decodes = pending.filter(|chunk| chunk.kind == ChunkKind::Decode);
        decodes.map(|chunk| (chunk.slot, chunk.attempt)).collect()
    }

    /// Adds draft tokens for the slot to the next batch, as far as there is room: every slot keeps
    /// its row, and the last token of an answer is never evaluated. Call at most once per step and
    /// slot, for slots from [`Self::answering`].
    pub(crate) fn propose(&mut self, slot: usize, draft: &[Token]) {
        let drafted: usize = self.slots.iter().map(|slot| slot.drafts.len()).sum();
        let rows = self.limits.batch_tokens.saturating_sub(self.slots.len() + drafted);
        let slot = &mut self.slots[slot];
        let Some(assignment) = &slot.assignment else { return };
        let useful = assignment.end.saturating_sub(slot.tokens.len() + 1);
        slot.drafts = draft[..draft.len().min(rows).min(useful)].to_vec();
        slot.tokens.extend_from_slice(&slot.drafts);
    }

    /// Whether the next token's logits exist already: the last token was a draft and is evaluated.
    pub(crate) fn is_ahead(&self, slot: usize) -> bool {
        let slot = &self.slots[slot];
        slot.assignment.is_some() && slot.evaluated == slot.tokens.len()
    }

    /// Valid length of the slot's sequence in the KV cache; rejected drafts follow it.
    pub(crate) fn kept(&self, slot: usize) -> usize {
        self.slots[slot].evaluated
    }

    /// The next batch, in slot order (llama.cpp evaluates consecutive sequence ids together); empty
    /// when idle.
    ///
    /// Each decoding sequence gets one row. Prefills share the rest of the budget, at most
    /// `prompt_rows` for the number of decode rows (`prefill_shares`). Each gets at least one row.
    pub(crate) fn next_batch(&self, prompt_rows: impl Fn(usize) -> usize) -> Vec<Chunk> {
        let mut batch: Vec<Chunk> =
            self.slots.iter().enumerate().filter_map(|(index, slot)| slot.pending(index)).collect();
        let decodes: usize = batch
            .iter()
            .filter(|chunk| chunk.kind == ChunkKind::Decode)
            .map(|chunk| chunk.len)
            .sum();
        let mut prefills: Vec<&mut Chunk> =
            batch.iter_mut().filter(|chunk| chunk.kind == ChunkKind::Prefill).collect();
        // There are at most as many chunks as slots, and a batch has room for one row of each.
        let budget =
            (self.limits.batch_tokens - decodes).min(prompt_rows(decodes).max(prefills.len()));
        let readings: Vec<Reading> = prefills.iter().map(|chunk| self.reading(chunk)).collect();
        for (chunk, share) in prefills.iter_mut().zip(prefill_shares::shares(&readings, budget)) {
            chunk.completes = share == chunk.len;
            chunk.len = share;
        }
        batch
    }

    fn reading(&self, chunk: &Chunk) -> Reading {
        let assignment = self.slots[chunk.slot].assignment.as_ref();
        Reading {
            rows: chunk.len,
            overtaken: assignment.map_or(0, |assignment| assignment.overtaken),
        }
    }

    /// The tokens of a chunk.
    pub(crate) fn tokens(&self, chunk: &Chunk) -> &[Token] {
        &self.slots[chunk.slot].tokens[chunk.start..chunk.start + chunk.len]
    }

    /// Records an evaluated batch: its tokens are in the KV cache.
    pub(crate) fn evaluated(&mut self, batch: &[Chunk]) {
        let prefills = batch.iter().filter(|chunk| chunk.kind == ChunkKind::Prefill);
        let (count, rows) = prefills.fold((0, 0), |(count, rows), c| (count + 1, rows + c.len));
        for chunk in batch {
            let slot = &mut self.slots[chunk.slot];
            if let Some(assignment) = &mut slot.assignment {
                let before = assignment.overtaken;
                assignment.overtaken = prefill_shares::overtaken(before, chunk.len, rows, count);
            }
            slot.evaluated = chunk.start + chunk.len - chunk.drafts;
            if chunk.drafts > 0 {
                slot.tokens.truncate(slot.evaluated);
            }
        }
    }

    /// Appends a sampled token; false if the sequence has reached its output limit or its context.
    pub(crate) fn push(&mut self, slot: usize, token: Token) -> bool {
        let slot = &mut self.slots[slot];
        slot.tokens.push(token);
        if slot.drafts.first() == Some(&token) {
            slot.drafts.remove(0);
            slot.evaluated += 1;
        } else {
            slot.drafts.clear();
        }
        slot.assignment.as_ref().is_some_and(|assignment| slot.tokens.len() < assignment.end)
    }

    /// Ends the slot's sequence; its evaluated part stays as cache.
    pub(crate) fn release(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        slot.tokens.truncate(slot.evaluated);
        slot.drafts.clear();
        slot.assignment = None;
    }

    /// Removes an attempt from queue or slot. Its slot is idle at once.
    pub(crate) fn cancel(&mut self, attempt: AttemptId) -> Cancelled {
        if self.queue.remove(attempt) {
            return Cancelled::Waiting;
        }
        let holds = |slot: &Slot| {
            slot.assignment.as_ref().is_some_and(|assignment| assignment.attempt == attempt)
        };
        match self.slots.iter().position(holds) {
            Some(slot) => {
                self.release(slot);
                Cancelled::Running { slot }
            }
            None => Cancelled::Unknown,
        }
    }

    /// Removes and returns attempts past their deadline, queued or running.
    pub(crate) fn expire(&mut self, now: MonotonicNs) -> Vec<AttemptId> {
        let mut expired = self.queue.expire(now);
        for slot in 0..self.slots.len() {
            let assignment = self.slots[slot].assignment.as_ref();
            if let Some(late) =
                assignment.filter(|assignment| assignment.deadline.is_some_and(|at| at <= now))
            {
                expired.push(late.attempt);
                self.release(slot);
            }
        }
        expired
    }
}

#[cfg(test)]
mod tests;
