//! A tokenised request, as the scheduler and its queue hold it.

use crate::backends::llama::wire::token::Token;
use crate::backends::scheduling_options::SchedulingOptions;
use crate::units::AttemptId;

/// A tokenised request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) attempt: AttemptId,
    pub(crate) prompt: Vec<Token>,
    /// Maximum number of tokens to generate; at least 1 in the scheduler.
    pub(crate) output_limit: usize,
    pub(crate) terms: SchedulingOptions,
}
