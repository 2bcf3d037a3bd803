//! What binds the next token of an answer: the form of the answer, that of a call it has begun, or nothing.
//!
//! A model may think before it answers, so a form waits until the reasoning is over. A call that the model begins by
//! itself is bound from its tag on; where its format has no tag, from the tool's name on.

use super::matcher::{Chosen, Grammar};
use crate::backends::llama::engine::output::parser::AnswerParser;
use crate::backends::llama::engine::sample::sampler::Mask;
use crate::backends::llama::wire::constraint::GrammarError;
use crate::openai::FinishReason;

#[derive(Default)]
pub(crate) struct Binding {
    /// Binds now.
    active: Option<Grammar>,
    /// Binds the answer as soon as the model does not reason.
    answer: Option<Grammar>,
    /// As every call begins.
    call: Option<Grammar>,
    /// The token with which the model may begin to reason, though a form is demanded.
    thought: Option<u32>,
}

impl Binding {
    pub(crate) fn new(
        answer: Option<Grammar>,
        call: Option<Grammar>,
        thought: Option<u32>,
    ) -> Self {
        Self { active: None, answer, call, thought }
    }

    /// The next token of an answer that has come as far as `said` and may have `left` more of them. `sample` chooses
    /// among all tokens, or among those allowed.
    pub(crate) fn choose(
        &mut self,
        said: &AnswerParser,
        left: usize,
        sample: impl FnOnce(Option<Mask<'_>>) -> usize,
    ) -> Result<Chosen, GrammarError> {
        self.bind(said);
        let Some(grammar) = &mut self.active else {
            return Ok(Chosen { token: sample(None), end: None });
        };
        let thought = self.thought.filter(|_| said.may_reason());
        let chosen = grammar.choose(left, thought, |mask| sample(Some(mask)))?;
        if thought.is_some_and(|thought| thought as usize == chosen.token) {
            self.answer = self.active.take();
        } else if chosen.end == Some(FinishReason::Stop) {
            self.active = None;
        }
        Ok(chosen)
    }

    fn bind(&mut self, said: &AnswerParser) {
        if self.active.is_some() || said.is_reasoning() {
            return;
        }
        self.active = self.answer.take();
        if let (None, Some(begun), Some(fresh)) = (&self.active, said.begun_call(), &self.call) {
            let mut grammar = fresh.clone();
            // A model that spells calls in a way of its own goes on unbound.
            match grammar.read(begun) {
                Ok(()) => self.active = Some(grammar),
                Err(_) => self.call = None,
            }
        }
    }
}
