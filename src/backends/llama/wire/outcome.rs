//! How an attempt ends in the engine: its token counts, or the reason of a refusal.

use serde::{Deserialize, Serialize};

use super::constraint::GrammarError;
use super::token::Token;
use crate::openai::FinishReason;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Finished {
        reason: FinishReason,
        counts: Counts,
    },
    Refused(Refusal),
    Cancelled,
    /// Its deadline came first.
    Expired,
}

/// Tokens of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub prompt_tokens: u32,
    pub cached_tokens: u32,
    /// Every token sampled, the one that ended the turn included.
    pub completion_tokens: u32,
    /// Those of them that were reasoning.
    pub reasoning_tokens: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    Scheduler(Rejection),
    /// There is no chat template to write a conversation with.
    NoChatTemplate,
    /// The model's template does not take these turns, in its own words.
    Template(String),
    /// A prompt's token that is not in the vocabulary of so many.
    UnknownToken {
        token: u32,
        vocabulary: u32,
    },
    /// `logit_bias` names a token that the vocabulary of so many does not have.
    UnknownBias {
        token: Token,
        vocabulary: u32,
    },
    /// The answer cannot have the form asked for.
    Grammar(GrammarError),
    /// Calls of the tool in this place, which is strict, cannot keep to its schema.
    Tool {
        place: usize,
        error: GrammarError,
    },
    /// The model's vectors are shorter than asked for.
    Dimensions {
        most: u32,
    },
    /// The model gives vectors and text was asked for, or the other way round.
    OtherTask,
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    #[error("the engine's queue is full")]
    QueueFull,
    #[error("the prompt has {prompt_tokens} tokens and the context holds {context_tokens}")]
    ContextExceeded { prompt_tokens: u32, context_tokens: u32 },
    #[error("the prompt is empty")]
    EmptyPrompt,
}
