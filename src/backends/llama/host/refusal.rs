//! Errors for requests that a local model, or its engine, cannot take. Pure.

use super::command::RETRY_AFTER;
use crate::backends::backend::{ErrorKind, UNSUPPORTED_ENDPOINT};
use crate::backends::llama::wire::outcome::{Refusal, Rejection};

/// A request that is at fault, and its field.
pub(super) fn invalid(param: &str, message: impl Into<String>) -> ErrorKind {
    ErrorKind::InvalidRequest { message: message.into(), param: Some(param.to_owned()), code: None }
}

/// `field` of the request is what the engine read; `ahead` others were there.
pub(super) fn error_kind(refusal: Refusal, field: &str, ahead: u32) -> ErrorKind {
    match refusal {
        Refusal::Scheduler(Rejection::QueueFull) => {
            ErrorKind::Overloaded { retry_after: RETRY_AFTER, ahead }
        }
        Refusal::Scheduler(Rejection::ContextExceeded { prompt_tokens, context_tokens }) => {
            ErrorKind::ContextExceeded { prompt_tokens, context_tokens }
        }
        Refusal::Scheduler(empty @ Rejection::EmptyPrompt) => invalid(field, empty.to_string()),
        Refusal::Grammar(error) => {
            invalid("response_format", format!("`response_format` cannot be kept to: {error}"))
        }
        Refusal::Tool { place, error } => {
            let param = format!("tools[{place}].function.parameters");
            invalid(&param, format!("`{param}` cannot be kept to, as `strict` demands: {error}"))
        }
        Refusal::UnknownBias { token, vocabulary } => invalid(
            "logit_bias",
            format!("`logit_bias` names token {token}; the model's vocabulary has {vocabulary}"),
        ),
        Refusal::NoChatTemplate => ErrorKind::InvalidRequest {
            message: "the model has no chat template: it continues raw prompts (/v1/completions)"
                .to_owned(),
            param: Some("model".to_owned()),
            code: Some(UNSUPPORTED_ENDPOINT.to_owned()),
        },
        Refusal::Template(reason) => {
            invalid(field, format!("the model's chat template refused the messages: {reason}"))
        }
        Refusal::UnknownToken { token, vocabulary } => {
            invalid(field, format!("there is no token {token}: the model knows {vocabulary}"))
        }
        Refusal::Dimensions { most } => {
            invalid("dimensions", format!("`dimensions`: the model's vectors have {most}"))
        }
        Refusal::OtherTask => invalid("model", "the model answers another kind of request"),
    }
}
