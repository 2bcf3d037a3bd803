//! Slot choice for a request, and the source of its cached prefix. Pure.

use std::cmp::Reverse;

use super::request::Request;
use super::scheduler::Scheduler;
use super::slot::{Assignment, PrefixSource, Slot, common_prefix};
use crate::backends::llama::wire::token::Token;
use crate::units::AttemptId;

/// Minimum gain in tokens for moving a prefix: fewer are evaluated as fast.
pub(crate) const WORTH_MOVING: usize = 32;

/// A request that got a slot. The caller drops everything past `cached_tokens` from the slot's KV
/// cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    pub(crate) attempt: AttemptId,
    pub(crate) slot: usize,
    pub(crate) prompt_tokens: usize,
    /// Prefix of the prompt in the slot.
    pub(crate) cached_tokens: usize,
    /// Prefix of the prompt in the slot, or expected from another slot.
    pub(crate) expected_tokens: usize,
    /// The slot's previous sequence, if enough of it is lost to be worth saving.
    pub(crate) displaced: Vec<Token>,
}

/// A prefix to copy between slots: `to` then holds the first `tokens` of `from`, and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// The attempt of the prompt in `to`.
    pub(crate) attempt: AttemptId,
    pub(crate) tokens: usize,
}

impl Scheduler {
    /// Gives the next queued request a slot, if one is idle. Call until it returns `None`.
    pub(crate) fn admit(&mut self) -> Option<Admission> {
        if self.slots.iter().all(|slot| slot.assignment.is_some()) {
            return None;
        }
        let slot = self.best_idle_slot(&self.queue.first()?.prompt)?;
        let Request { attempt, prompt, output_limit, terms } = self.queue.pop()?;
        self.admissions += 1;
        let (cached_tokens, source) = if self.reuses_prefixes {
            let cached_tokens = self.slots[slot].reusable(&prompt);
            (cached_tokens, self.best_source(slot, &prompt, cached_tokens))
        } else {
            (0, None)
        };
        let prompt_tokens = prompt.len();
        let end = self.limits.context_tokens.min(prompt_tokens.saturating_add(output_limit));
        let assignment = Assignment {
            attempt,
            prompt_tokens,
            end,
            deadline: terms.deadline,
            overtaken: 0,
            source,
        };
        let new = Slot {
            tokens: prompt,
            evaluated: cached_tokens,
            assignment: Some(assignment),
            admitted_at: self.admissions,
            drafts: Vec::new(),
        };
        let mut old = std::mem::replace(&mut self.slots[slot], new);
        old.tokens.truncate(old.evaluated);
        let lost = old.evaluated >= cached_tokens + WORTH_MOVING;
        Some(Admission {
            attempt,
            slot,
            prompt_tokens,
            cached_tokens,
            expected_tokens: source.map_or(cached_tokens, |source| source.tokens),
            displaced: if lost { old.tokens } else { Vec::new() },
        })
    }

    /// The next prefix that can be copied. Call until it returns `None`, after each admission and
    /// before each batch.
    pub(crate) fn next_transfer(&mut self) -> Option<Transfer> {
        (0..self.slots.len()).find_map(|to| self.transfer_to(to))
    }

    /// Ends the slot's wait for its source if the source has the prefix or never will.
    fn transfer_to(&mut self, to: usize) -> Option<Transfer> {
        let assignment = self.slots[to].assignment.as_ref()?;
        let (attempt, source) = (assignment.attempt, assignment.source?);
        let donor = &self.slots[source.slot];
        let same = donor.admitted_at == source.admitted_at;
        let tokens = if same { donor.evaluated.min(source.tokens) } else { 0 };
        if same && tokens < source.tokens && donor.assignment.is_some() {
            return None;
        }
        let slot = &mut self.slots[to];
        if let Some(assignment) = &mut slot.assignment {
            assignment.source = None;
        }
        if tokens < slot.evaluated + WORTH_MOVING {
            return None;
        }
        slot.evaluated = tokens;
        Some(Transfer { from: source.slot, to, attempt, tokens })
    }

    /// Records that the slot got the first `tokens` of its prompt from host memory.
    pub(crate) fn restored(&mut self, slot: usize, tokens: usize) {
        let slot = &mut self.slots[slot];
        slot.evaluated = tokens;
        if let Some(assignment) = &mut slot.assignment {
            assignment.source = None;
        }
    }

    /// Records that the slot's prefix is lost: all of it must be evaluated.
    pub(crate) fn forget_cache(&mut self, slot: usize) {
        self.slots[slot].evaluated = 0;
    }

    /// The other slot with the longest prefix of `prompt`, evaluated or pending, if waiting for it
    /// pays.
    fn best_source(&self, slot: usize, prompt: &[Token], own: usize) -> Option<PrefixSource> {
        let others = self.slots.iter().enumerate().filter(|&(index, _)| index != slot);
        others
            .map(|(index, other)| PrefixSource {
                slot: index,
                admitted_at: other.admitted_at,
                tokens: common_prefix(&other.tokens, prompt).min(prompt.len() - 1),
            })
            .filter(|source| source.tokens >= own + WORTH_MOVING)
            .max_by_key(|source| {
                let evaluated = self.slots[source.slot].evaluated.min(source.tokens);
                (source.tokens, evaluated, Reverse(source.admitted_at))
            })
    }

    /// The idle slot whose cache loses least by `prompt`.
    ///
    /// First choice is the slot whose cache the prompt reuses most, if that is at least half of the
    /// cache: a conversation finds its own slot. Otherwise an empty slot, then the least recently
    /// used, rather than another conversation's cache for a few shared template tokens. Ties go to
    /// slots next to busy ones: llama.cpp evaluates only consecutive sequence ids together, so each
    /// gap between busy slots costs another pass over the weights.
    fn best_idle_slot(&self, prompt: &[Token]) -> Option<usize> {
        let idle = || self.slots.iter().enumerate().filter(|(_, slot)| slot.assignment.is_none());
        let continued = idle()
            .map(|(index, slot)| (index, slot.reusable(prompt), slot.evaluated))
            .filter(|&(_, reused, cached)| reused > 0 && reused * 2 >= cached)
            .max_by_key(|&(_, reused, _)| reused);
        let overwritten = idle().min_by_key(|&(index, slot)| {
            (slot.evaluated > 0, Reverse(self.busy_neighbours(index)), slot.admitted_at)
        });
        continued.map(|(index, ..)| index).or(overwritten.map(|(index, _)| index))
    }

    fn busy_neighbours(&self, index: usize) -> usize {
        let neighbours = [index.checked_sub(1), index.checked_add(1)];
        let busy =
            |index: &usize| self.slots.get(*index).is_some_and(|slot| slot.assignment.is_some());
        neighbours.into_iter().flatten().filter(busy).count()
    }
}
