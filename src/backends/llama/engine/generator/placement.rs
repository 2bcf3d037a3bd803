//! Reuse of evaluated prompts: from the request's slot, another slot, or host memory.
//!
//! Copies sequences by saved state, not by llama.cpp's copy between streams: that copy is deferred
//! to the next batch, so a state read or set before it would be wrong, and it copies a slot's whole
//! buffer.

use llama_cpp_2::context::session::{LlamaStateSeqFlags, SeqState};

use super::{Generator, as_index, count};
use crate::backends::llama::engine::error::EngineError;
use crate::backends::llama::engine::schedule::kv_host_cache::Entry;
use crate::backends::llama::engine::schedule::placement::{Admission, Transfer, WORTH_MOVING};
use crate::backends::llama::wire::outcome::Counts;
use crate::backends::llama::wire::protocol::FromEngine;
use crate::backends::llama::wire::token::Token;
use crate::units::{AttemptId, MonotonicNs};

impl Generator<'_> {
    /// Assigns slots to queued requests and copies shared prefixes.
    pub(crate) fn fill_slots(&mut self) -> Result<(), EngineError> {
        while let Some(admission) = self.scheduler.admit() {
            self.admit(&admission)?;
            self.share_prefixes()?;
        }
        self.share_prefixes()
    }

    fn share_prefixes(&mut self) -> Result<(), EngineError> {
        while let Some(transfer) = self.scheduler.next_transfer() {
            self.transfer(&transfer)?;
        }
        Ok(())
    }

    fn admit(&mut self, admission: &Admission) -> Result<(), EngineError> {
        let &Admission { attempt, slot, prompt_tokens, expected_tokens, .. } = admission;
        let prompt = self.scheduler.prompt(slot).to_vec();
        // Before the displaced sequence is stored, which may evict this one.
        let found = self.host.take(&prompt[..prompt_tokens - 1], expected_tokens + WORTH_MOVING);
        self.keep(slot, &admission.displaced);
        let mut cached_tokens = admission.cached_tokens;
        if let Some((entry, tokens)) = found {
            cached_tokens = self.restore(slot, &entry, tokens)?;
            self.reused.host += count(cached_tokens);
            if tokens < entry.tokens.len() {
                self.host.put(entry);
            }
        } else {
            if !self.trim(slot, cached_tokens)? {
                self.clear(slot)?;
                cached_tokens = 0;
            }
            self.reused.slot += count(cached_tokens);
        }
        self.found(attempt, prompt_tokens, cached_tokens);
        let dropped_turns =
            self.sequences.get(&attempt).map_or(0, |sequence| sequence.state.dropped_turns);
        let at = MonotonicNs::now();
        let admitted = FromEngine::Admitted { attempt, at, dropped_turns };
        Ok(self.outbox.push(&admitted)?)
    }

    /// Saves a sequence that loses its slot.
    fn keep(&mut self, slot: usize, displaced: &[Token]) {
        if displaced.is_empty() || !self.host.wants(displaced) {
            return;
        }
        // A state that cannot be saved is evaluated again later.
        if let Ok(state) = self.context.state_seq_get(as_index(slot), LlamaStateSeqFlags::empty()) {
            let bytes = state.byte_len();
            self.host.put(Entry { tokens: displaced.to_vec(), state, bytes });
        }
    }

    /// Restores the first `tokens` of a saved sequence into the slot; returns the slot's length.
    fn restore(
        &mut self,
        slot: usize,
        entry: &Entry<SeqState>,
        tokens: usize,
    ) -> Result<usize, EngineError> {
        let set = self.context.state_seq_set(&entry.state, as_index(slot)).is_ok();
        if set && self.trim(slot, tokens)? {
            self.scheduler.restored(slot, tokens);
            Ok(tokens)
        } else {
            self.clear(slot)?;
            Ok(0)
        }
    }

    fn transfer(&mut self, transfer: &Transfer) -> Result<(), EngineError> {
        let &Transfer { from, to, attempt, tokens } = transfer;
        let flags = LlamaStateSeqFlags::empty();
        let state = self.context.state_seq_get(as_index(from), flags);
        let set = state.is_ok_and(|state| self.context.state_seq_set(&state, as_index(to)).is_ok());
        let prompt_tokens = self.scheduler.prompt(to).len();
        let counts = self.sequences.get(&attempt).map(|sequence| sequence.counts);
        let own_tokens = counts.map_or(0, |counts| counts.cached_tokens as usize).min(tokens);
        if set && self.trim(to, tokens)? {
            self.reused.shared += count(tokens - own_tokens);
            self.found(attempt, prompt_tokens, tokens);
        } else {
            self.clear(to)?;
            self.found(attempt, prompt_tokens, 0);
        }
        Ok(())
    }

    /// Records the cached length of the prompt.
    fn found(&mut self, attempt: AttemptId, prompt_tokens: usize, cached_tokens: usize) {
        if let Some(sequence) = self.sequences.get_mut(&attempt) {
            let (prompt_tokens, cached_tokens) = (count(prompt_tokens), count(cached_tokens));
            sequence.counts = Counts { prompt_tokens, cached_tokens, ..Counts::default() };
        }
    }

    /// Empties the slot: the model cannot truncate its cache (recurrent), or a state did not fit.
    fn clear(&mut self, slot: usize) -> Result<(), EngineError> {
        self.scheduler.forget_cache(slot);
        self.trim(slot, 0)?;
        Ok(())
    }

    /// Truncates the slot to `kept` tokens; false if the model cannot.
    pub(crate) fn trim(&mut self, slot: usize, kept: usize) -> Result<bool, EngineError> {
        let (slot, kept) = (u32::try_from(slot).ok(), u32::try_from(kept).ok());
        self.context
            .clear_kv_cache_seq(slot, kept, None)
            .map_err(|error| EngineError::Decode(error.to_string()))
    }
}
