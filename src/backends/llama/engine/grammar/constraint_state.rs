//! The grammar in force at each token of an answer: that of the answer, that of a begun call, or
//! none.
//!
//! A constraint on the answer takes effect after the reasoning. A call that the model begins itself
//! is constrained from its tag on or, in formats without a tag, from the tool's name on.

use super::matcher::{Chosen, Grammar};
use crate::backends::llama::engine::output::parser::OutputParser;
use crate::backends::llama::engine::sample::sampler::Mask;
use crate::backends::llama::wire::constraint::GrammarError;
use crate::openai::FinishReason;

#[derive(Default)]
pub(crate) struct ConstraintState {
    /// In force now.
    active: Option<Grammar>,
    /// In force after the reasoning.
    answer: Option<Grammar>,
    /// Initial state for each call.
    call: Option<Grammar>,
    /// The token that may open reasoning before a constrained answer.
    reasoning_token: Option<u32>,
}

impl ConstraintState {
    pub(crate) fn new(
        answer: Option<Grammar>,
        call: Option<Grammar>,
        reasoning_token: Option<u32>,
    ) -> Self {
        Self { active: None, answer, call, reasoning_token }
    }

    /// The next token of an answer with `parser` so far and at most `left` tokens to come. `sample`
    /// chooses among all tokens, or among those of a mask.
    pub(crate) fn choose(
        &mut self,
        parser: &OutputParser,
        left: usize,
        sample: impl FnOnce(Option<Mask<'_>>) -> usize,
    ) -> Result<Chosen, GrammarError> {
        self.update(parser);
        let Some(grammar) = &mut self.active else {
            return Ok(Chosen { token: sample(None), end: None });
        };
        let reasoning_token = self.reasoning_token.filter(|_| parser.may_reason());
        let chosen = grammar.choose(left, reasoning_token, |mask| sample(Some(mask)))?;
        if reasoning_token.is_some_and(|reasoning_token| reasoning_token as usize == chosen.token) {
            self.answer = self.active.take();
        } else if chosen.end == Some(FinishReason::Stop) {
            self.active = None;
        }
        Ok(chosen)
    }

    fn update(&mut self, parser: &OutputParser) {
        if self.active.is_some() || parser.is_reasoning() {
            return;
        }
        self.active = self.answer.take();
        if let (None, Some(begun), Some(fresh)) = (&self.active, parser.begun_call(), &self.call) {
            let mut grammar = fresh.clone();
            // A call in another spelling continues without constraint.
            match grammar.read(begun) {
                Ok(()) => self.active = Some(grammar),
                Err(_) => self.call = None,
            }
        }
    }
}
