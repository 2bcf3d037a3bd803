//! Outcomes of attempts: token counts of a finished answer, or the reason of a refusal.

use serde::{Deserialize, Serialize};

use super::constraint::GrammarError;
use crate::openai::FinishReason;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Finished {
        reason: FinishReason,
        counts: Counts,
    },
    Refused(Refusal),
    Cancelled,
    /// The deadline has passed.
    Expired,
}

/// Tokens of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub prompt_tokens: u32,
    pub cached_tokens: u32,
    /// All sampled tokens, including the end token.
    pub completion_tokens: u32,
    /// Completion tokens that are reasoning.
    pub reasoning_tokens: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    Scheduler(Rejection),
    /// The model has no chat template.
    NoChatTemplate,
    /// The template's own error message.
    Template(String),
    /// Rendering takes more time or memory than it may.
    TemplateLimit,
    /// A prompt token outside of the vocabulary.
    UnknownToken {
        token: u32,
        vocabulary: u32,
    },
    /// A token in `logit_bias` outside of the vocabulary.
    UnknownBias {
        token: u32,
        vocabulary: u32,
    },
    /// The answer's constraint is unusable.
    Grammar(GrammarError),
    /// The schema of this strict tool is unusable.
    Tool {
        place: usize,
        error: GrammarError,
    },
    /// More dimensions requested than the model's vectors have.
    Dimensions {
        most: u32,
    },
    /// Text requested from an embedding model, or vectors from a text model.
    OtherTask,
}

/// Reasons of the scheduler for refusing a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    #[error("the engine's queue is full")]
    QueueFull,
    #[error("the prompt has {prompt_tokens} tokens and the context holds {context_tokens}")]
    ContextExceeded { prompt_tokens: u32, context_tokens: u32 },
    #[error("the prompt is empty")]
    EmptyPrompt,
}
