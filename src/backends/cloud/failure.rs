//! What went wrong at an upstream, in the words of `ErrorKind`.
//!
//! Pure. Repeats nothing that may hold a secret: no URL, nothing that looks like a key, and nothing
//! an upstream says about credentials.

mod connection;
mod kinds;
mod retry_after;
mod said;
mod secrets;
mod too_long;

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

pub(super) use self::connection::{broken, broken_plain, unsent, unsent_plain};
use self::said::Said;
use self::too_long::{TooLong, too_long};
use crate::backends::backend::{
    CONTEXT_LENGTH_EXCEEDED, ErrorKind, RequestFault, UNSUPPORTED_ENDPOINT,
};

/// Longest reason that is added to a failure of the upstream's own, in characters.
const REASON_CHARS: usize = 300;

/// The code of a refusal for what the prompt is about.
const CONTENT_FILTER: &str = "content_filter";

/// A response whose status is not 2xx. `now` is for a `Retry-After` that names a date.
pub(super) fn refused(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: SystemTime,
) -> ErrorKind {
    if status.is_redirection() {
        return ErrorKind::Protocol(format!(
            "it redirects (HTTP {}), which could take the key elsewhere: correct base_url",
            status.as_u16()
        ));
    }
    let said = Said::in_body(body);
    let wait = retry_after::retry_after(headers, &said, now);
    classify(status.as_u16(), wait, &said)
}

/// Whether an upstream refused a streamed request because of the options that the gateway adds.
pub(super) fn refuses_stream_options(status: StatusCode, body: &[u8]) -> bool {
    let named = |name: &[u8]| memchr::memmem::find(body, name).is_some();
    matches!(status.as_u16(), 400 | 422) && (named(b"stream_options") || named(b"include_usage"))
}

/// The upstream has nothing at the address of a request that is not chat.
pub(super) fn unsupported(field: &str) -> ErrorKind {
    let message = format!("the upstream does not answer requests with `{field}` (HTTP 404)");
    RequestFault::new(message, Some("model"), Some(UNSUPPORTED_ENDPOINT)).of_model()
}

/// An error in a 2xx response, in a stream or whole, which has no HTTP status of its own.
pub(super) fn reported(error: &Value) -> ErrorKind {
    let said = Said::of(error);
    classify(kinds::status_of(&said), None, &said)
}

/// As [`reported`], of a text that may be JSON.
pub(super) fn reported_json(error: &str) -> ErrorKind {
    let value = serde_json::from_str(error);
    reported(&value.unwrap_or_else(|_| Value::String(error.to_owned())))
}

/// The error that came in place of an answer: an envelope, a bare one, or a list of them.
pub(super) fn in_answer(answer: &Value) -> Option<ErrorKind> {
    let is_error = |one: &Value| {
        let envelope = one.get("error").is_some_and(|error| match error {
            Value::Null | Value::Bool(false) => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::Object(members) => !members.is_empty(),
            _ => true,
        });
        let bare = one.get("choices").is_none()
            && (one["object"] == "error"
                || one["message"].is_string() && !one["code"].is_null()
                || one["detail"].is_string());
        envelope || bare
    };
    let found = match answer {
        Value::Array(list) => list.iter().any(is_error),
        one => is_error(one),
    };
    found.then(|| reported(answer))
}

pub(super) fn protocol(what: &str) -> ErrorKind {
    ErrorKind::Protocol(what.to_owned())
}

fn classify(status: u16, retry_after: Option<Duration>, said: &Said) -> ErrorKind {
    // Some servers say it with a 500.
    if matches!(status, 400 | 413 | 422 | 500)
        && let Some(too_long) = too_long(said)
    {
        return match too_long {
            TooLong::Counted { prompt_tokens, context_tokens } => {
                ErrorKind::ContextExceeded { prompt_tokens, context_tokens }
            }
            TooLong::Said => {
                with_code(fault(400, status, said), CONTEXT_LENGTH_EXCEEDED).of_model()
            }
        };
    }
    match status {
        401 => ErrorKind::Credentials { status },
        403 => forbidden(said),
        404 | 405 | 410 => unknown(status, said).of_model(),
        413 => fault(413, status, said).of_model(),
        // A smaller request passes: nothing to wait for.
        429 if kinds::is_beyond_the_limit(said) => fault(413, status, said).of_model(),
        429 => ErrorKind::RateLimited { retry_after, reason: reason(said) },
        400 | 422 if kinds::is_surely_about_the_key(said) => ErrorKind::Credentials { status },
        400 | 422 if said.message.is_none() || kinds::is_a_lack(said) => {
            fault(400, status, said).of_model()
        }
        400 | 422 if kinds::is_moderation(said) => {
            with_code(fault(400, status, said), CONTENT_FILTER).of_model()
        }
        400 | 422 => fault(400, status, said).of_request(),
        451 => fault(451, status, said).of_model(),
        // 402 is about the account, 408, 425 and 499 about the moment.
        402 | 408 | 425 | 499 => upstream_status(status, retry_after, said),
        400..500 => fault(400, status, said).of_model(),
        _ => upstream_status(status, retry_after, said),
    }
}

fn upstream_status(status: u16, retry_after: Option<Duration>, said: &Said) -> ErrorKind {
    ErrorKind::UpstreamStatus { status, retry_after, reason: reason(said) }
}

/// 403 is for keys that may not, and for prompts and places that are not wanted.
fn forbidden(said: &Said) -> ErrorKind {
    let status = 403;
    if kinds::is_moderation(said) {
        return with_code(fault(status, status, said), CONTENT_FILTER).of_model();
    }
    let says_nothing = said.message.is_none() && !said.is_page;
    if says_nothing || kinds::is_about_the_key(said) {
        return ErrorKind::Credentials { status };
    }
    fault(status, status, said).of_model()
}

/// The model or the path does not exist there.
fn unknown(status: u16, said: &Said) -> RequestFault {
    if kinds::is_a_lack(said) {
        return fault(404, status, said);
    }
    let hint = format!(
        "the upstream knows no such model or path (HTTP {status}): check base_url and model"
    );
    RequestFault { message: hint, ..fault(404, status, said) }
}

fn with_code(fault: RequestFault, code: &str) -> RequestFault {
    RequestFault { code: Some(code.to_owned()), ..fault }
}

/// A refusal, which the client sees with the status `status`.
fn fault(status: u16, upstream_status: u16, said: &Said) -> RequestFault {
    let message = if let Some(message) = &said.message {
        secrets::masked(message)
    } else {
        let how = if said.is_page { ", with a page instead of a reason" } else { "" };
        format!("the upstream refused the request (HTTP {upstream_status}{how})")
    };
    // A number repeats the status only.
    let code = said.code.clone().filter(|code| code.parse::<u64>().is_err());
    let masked = |text: String| secrets::masked(&text);
    RequestFault { status, message, param: said.param.clone().map(masked), code: code.map(masked) }
}

fn reason(said: &Said) -> Option<String> {
    let shortened: String = said.message.as_ref()?.chars().take(REASON_CHARS).collect();
    Some(secrets::masked(&shortened))
}

#[cfg(test)]
mod tests;
