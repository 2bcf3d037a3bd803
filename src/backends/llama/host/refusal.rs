//! Errors for requests that a local model, or its engine, cannot take. Pure.

use super::command::{Fields, RETRY_AFTER};
use crate::backends::backend::{ErrorKind, RequestFault, UNSUPPORTED_ENDPOINT};
use crate::backends::llama::wire::outcome::{Refusal, Rejection};

/// Our error code for a field that only some models support.
const UNSUPPORTED_PARAMETER: &str = "unsupported_parameter";

/// An error of the request at this model, with the field that causes it.
pub(super) fn invalid(param: &str, message: impl Into<String>) -> ErrorKind {
    RequestFault::new(message, Some(param), None).of_model()
}

/// An error for a field that local models do not honour, and others may.
pub(super) fn unsupported(param: &str, what: &str) -> ErrorKind {
    let message = format!("`{param}`: local models do not support {what}");
    RequestFault::new(message, Some(param), Some(UNSUPPORTED_PARAMETER)).of_model()
}

/// The error for a refusal of the engine; `ahead` attempts are open.
pub(super) fn error_kind(refusal: Refusal, fields: Fields, ahead: u32) -> ErrorKind {
    let field = fields.prompt;
    match refusal {
        Refusal::Scheduler(Rejection::QueueFull) => {
            ErrorKind::Overloaded { retry_after: RETRY_AFTER, ahead }
        }
        Refusal::Scheduler(Rejection::ContextExceeded { prompt_tokens, context_tokens }) => {
            ErrorKind::ContextExceeded { prompt_tokens, context_tokens }
        }
        Refusal::Scheduler(empty @ Rejection::EmptyPrompt) => invalid(field, empty.to_string()),
        Refusal::Grammar(error) => {
            let field = fields.constraint;
            invalid(field, format!("`{field}` cannot be enforced: {error}"))
        }
        Refusal::Tool { place, error } => {
            let param = format!("tools[{place}].function.parameters");
            invalid(
                &param,
                format!("`{param}` cannot be enforced, which `strict` requires: {error}"),
            )
        }
        Refusal::UnknownBias { token, vocabulary } => invalid(
            "logit_bias",
            format!("`logit_bias` names token {token}; the model's vocabulary has {vocabulary}"),
        ),
        Refusal::NoChatTemplate => RequestFault::new(
            "the model has no chat template: it continues raw prompts (/v1/completions)",
            Some("model"),
            Some(UNSUPPORTED_ENDPOINT),
        )
        .of_model(),
        Refusal::Template(reason) => {
            invalid(field, format!("the model's chat template refused the messages: {reason}"))
        }
        Refusal::TemplateLimit => invalid(
            field,
            "the model's chat template takes too much time or memory with these messages",
        ),
        Refusal::UnknownToken { token, vocabulary } => invalid(
            field,
            format!("unknown token {token}: the model's vocabulary has {vocabulary}"),
        ),
        Refusal::Dimensions { most } => {
            invalid("dimensions", format!("`dimensions`: the model's vectors have at most {most}"))
        }
        Refusal::OtherTask => invalid("model", "the model does not support this kind of request"),
    }
}
