//! State of one answer's grammar: the tokens allowed next, and a short path to the end near the
//! output limit.
//!
//! Knows neither logits nor HTTP.

use std::sync::Arc;

use llguidance::Matcher;

use super::closing::Closers;
use crate::backends::llama::wire::constraint::GrammarError;
use crate::openai::FinishReason;

/// The grammar of one answer after the tokens so far.
#[derive(Clone)]
pub(crate) struct Grammar {
    matcher: Matcher,
    closers: Arc<Closers>,
    /// Terminators of its free texts.
    ends: Arc<[Vec<u32>]>,
    /// Within this many tokens of the limit, a token is accepted only if the answer can still be
    /// completed after it.
    reserve: usize,
    /// Tokens that complete the answer from here, in reverse; set within the reserve.
    way_out: Option<Vec<u32>>,
    /// The rest of the answer, in reverse, once it is being completed; sampling has ended.
    closing: Option<Vec<u32>>,
}

/// A token, and the finish reason if the answer ends with it.
pub(crate) struct Chosen {
    pub(crate) token: usize,
    pub(crate) end: Option<FinishReason>,
}

/// Maximum length of the completion.
const LONGEST_WAY_OUT: usize = 256;

impl Grammar {
    pub(super) fn new(matcher: Matcher, ends: Arc<[Vec<u32>]>, closers: Arc<Closers>) -> Self {
        let shortest = closers.way_out(&matcher, &ends, LONGEST_WAY_OUT);
        let reserve = 64 + 2 * shortest.map_or(LONGEST_WAY_OUT, |way| way.len());
        Self { matcher, closers, ends, reserve, way_out: None, closing: None }
    }

    /// A copy that shares no mutable state.
    pub(super) fn fresh(&self) -> Self {
        Self { matcher: self.matcher.deep_clone(), ..self.clone() }
    }

    /// Advances over text that exists already.
    pub(crate) fn read(&mut self, text: &str) -> Result<(), GrammarError> {
        let tokens = self.matcher.tok_env().map_err(too_complex)?.tokenize_bytes(text.as_bytes());
        tokens.into_iter().try_for_each(|token| self.take(token as usize))
    }

    /// Advances by the next token, which `sample` chooses from a mask of one bit per token. `left`
    /// is the number of tokens that may still come, including this one: if they would not suffice,
    /// the answer is completed instead. The token `beside` is allowed too and does not advance the
    /// grammar.
    pub(crate) fn choose(
        &mut self,
        left: usize,
        beside: Option<u32>,
        sample: impl FnOnce(&[u32]) -> usize,
    ) -> Result<Chosen, GrammarError> {
        if self.closing.is_some() {
            return self.close();
        }
        let near = left <= self.reserve;
        if near && self.way_out.is_none() {
            self.way_out = self.find_way_out(left);
        }
        let mut mask = self.matcher.compute_mask_or_eos().map_err(too_complex)?;
        if let Some(beside) = beside {
            mask.allow_token(beside);
        }
        let token = sample(mask.as_slice());
        if beside.is_some_and(|beside| beside as usize == token) {
            return Ok(Chosen { token, end: None });
        }
        let before = near.then(|| self.matcher.clone());
        self.take(token)?;
        if let Some(before) = before
            && !self.matcher.is_stopped()
        {
            let here = self.find_way_out(left - 1);
            if let (None, Some(way)) = (&here, self.way_out.take()) {
                self.matcher = before;
                self.closing = Some(way);
                return self.close();
            }
            self.way_out = here;
        }
        let end = self.matcher.is_stopped().then_some(FinishReason::Stop);
        Ok(Chosen { token, end })
    }

    /// The next token of the completion.
    fn close(&mut self) -> Result<Chosen, GrammarError> {
        let end = self.matcher.tok_env().map_err(too_complex)?.tok_trie().eos_token();
        let way = self.closing.get_or_insert_default();
        // An empty completion: the answer is complete and lacks only its end token.
        let token = way.pop().unwrap_or(end) as usize;
        let end = way.is_empty().then_some(FinishReason::Length);
        self.take(token)?;
        Ok(Chosen { token, end })
    }

    fn find_way_out(&self, left: usize) -> Option<Vec<u32>> {
        let way = self.closers.way_out(&self.matcher, &self.ends, left.min(LONGEST_WAY_OUT));
        way.map(|way| way.into_iter().rev().collect())
    }

    fn take(&mut self, token: usize) -> Result<(), GrammarError> {
        let token = u32::try_from(token).map_err(too_complex)?;
        self.matcher.consume_token(token).map_err(too_complex)
    }
}

/// An error's text without the remark that there would be more of it.
pub(super) fn plain(error: &impl std::fmt::Display) -> String {
    error.to_string().trim_end_matches("<non-verbose/>").trim_end().to_owned()
}

fn too_complex(error: impl std::fmt::Display) -> GrammarError {
    GrammarError::TooComplex(plain(&error))
}
