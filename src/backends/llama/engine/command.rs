//! Commands from the reader thread to the thread that owns the llama.cpp context.

use std::sync::Arc;

use super::grammar::constraint_state::ConstraintState;
use super::grammar::matcher::Chosen;
use super::output::stream::OutputStream;
use super::sample::logprobs::Logprobs;
use super::sample::sampler::Sampler;
use super::schedule::request::Request;
use crate::backends::llama::wire::constraint::GrammarError;
use crate::backends::llama::wire::outcome::Outcome;
use crate::backends::llama::wire::token::Token;
use crate::backends::scheduling_options::SchedulingOptions;
use crate::units::AttemptId;

/// A command for the generator or the embedder.
pub(crate) enum EngineCommand {
    Generate {
        request: Request,
        state: Box<SequenceState>,
    },
    Embed(EmbeddingInput),
    /// Ends an attempt that was not evaluated.
    Close(AttemptId, Outcome),
    Cancel(AttemptId),
    /// A request is being prepared: says that the engine works, also while it evaluates nothing.
    Preparing,
}

/// A tokenised request for embeddings.
pub(crate) struct EmbeddingInput {
    pub(crate) attempt: AttemptId,
    pub(crate) inputs: Vec<Vec<Token>>,
    /// Length of the vectors; `None` for the model's own.
    pub(crate) dimensions: Option<u32>,
    pub(crate) terms: SchedulingOptions,
}

/// The state that turns a sequence's logits into output.
pub(crate) struct SequenceState {
    pub(crate) sampler: Sampler,
    pub(crate) output_stream: OutputStream,
    /// Control tokens whose text the parser needs.
    pub(crate) tags: Arc<[Token]>,
    /// Turns dropped so that the conversation fits.
    pub(crate) dropped_turns: u32,
    /// Constraints on the answer.
    pub(crate) constraint: ConstraintState,
    pub(crate) logprobs: Option<Logprobs>,
}

impl SequenceState {
    /// The next token of an answer that has at most `left` tokens to come.
    pub(crate) fn choose(&mut self, logits: &[f32], left: usize) -> Result<Chosen, GrammarError> {
        let sampler = &mut self.sampler;
        let parser = self.output_stream.parser();
        self.constraint.choose(parser, left, |mask| sampler.sample(logits, mask))
    }
}
