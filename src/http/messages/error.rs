//! Failures in Anthropic's envelope. Pure.

use axum::http::StatusCode;
use serde::Serialize;

use super::words::FIELDS;
use crate::http::error::ApiError;
use crate::http::translation::words::in_words_of;

#[derive(Debug, Serialize)]
pub struct Envelope<'a> {
    /// Always `error`.
    #[serde(rename = "type")]
    kind: &'static str,
    error: Body,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Body {
    #[serde(rename = "type")]
    kind: &'static str,
    message: String,
}

pub fn envelope<'a>(error: &ApiError, request_id: Option<&'a str>) -> Envelope<'a> {
    let own = in_words_of(FIELDS, error.envelope().error);
    let message = match error.lengths() {
        // Coding agents know this sentence, and shorten the conversation.
        Some((prompt, context)) => {
            format!("prompt is too long: {prompt} tokens > {context} maximum")
        }
        None => own.message,
    };
    let body = Body { kind: kind(error.status()), message };
    Envelope { kind: "error", error: body, request_id }
}

fn kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        _ => "api_error",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::backends::{BackendError, ErrorKind};
    use crate::serving::error::ServeErrorKind;

    #[test]
    fn failures_have_anthropics_words() {
        let backend = |kind| ApiError::from(BackendError { model: "m".into(), kind });
        let too_long = ErrorKind::ContextExceeded { prompt_tokens: 9, context_tokens: 4 };
        for (error, kind, message) in [
            (ApiError::NotJson("x".into()), "invalid_request_error", "not valid JSON"),
            (
                ServeErrorKind::UnknownModel("x".into()).into(),
                "not_found_error",
                "`x` does not exist",
            ),
            (
                backend(too_long),
                "invalid_request_error",
                "prompt is too long: 9 tokens > 4 maximum",
            ),
            (backend(ErrorKind::Unavailable("x".into())), "overloaded_error", "unavailable"),
            (ApiError::BodyTooLarge { limit_bytes: 1 }, "request_too_large", "larger"),
            (ApiError::INTERNAL, "api_error", "internal error"),
        ] {
            let body = serde_json::to_value(envelope(&error, Some("r"))).unwrap();
            assert_eq!((&body["type"], &body["error"]["type"]), (&json!("error"), &json!(kind)));
            let said = body["error"]["message"].as_str().unwrap();
            assert!(said.contains(message), "{said}");
            assert_eq!(body["request_id"], "r");
        }
    }
}
