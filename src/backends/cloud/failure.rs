//! What went wrong at an upstream, in the words of `ErrorKind`.
//!
//! Pure. Repeats nothing that may hold a secret: no URL, and nothing an upstream says about
//! credentials.

use std::error::Error;
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;

use super::plain;
use crate::backends::backend::{
    CONTEXT_LENGTH_EXCEEDED, ErrorKind, RequestFault, UNSUPPORTED_ENDPOINT,
};

/// Longest upstream message repeated to a client, in characters.
const MESSAGE_CHARS: usize = 1_000;

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
    match serde_json::from_slice(body) {
        Ok(body) => classify(status.as_u16(), retry_after(headers, now), error_object(&body)),
        Err(_) => classify(status.as_u16(), retry_after(headers, now), &Value::Null),
    }
}

/// The upstream has nothing at the address of a request that is not chat.
pub(super) fn unsupported(field: &str) -> ErrorKind {
    let message = format!("the upstream does not answer requests with `{field}` (HTTP 404)");
    RequestFault::new(message, Some("model"), Some(UNSUPPORTED_ENDPOINT)).of_model()
}

/// An error object in a 2xx response, in a stream or whole. It has no HTTP status of its own, so
/// the number in `code` serves where there is one (vLLM and some hosted routers), else what
/// OpenAI's type stands for.
pub(super) fn reported(error: &Value) -> ErrorKind {
    let status = error["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(
        match error["type"].as_str() {
            Some("invalid_request_error") => 400,
            Some("authentication_error") => 401,
            Some("rate_limit_error" | "rate_limit_exceeded") => 429,
            _ => 500,
        },
    );
    classify(status, None, error)
}

/// No connection, or no response on it.
pub(super) fn unsent(error: &reqwest::Error, connect_timeout: Duration) -> ErrorKind {
    match (error.is_connect(), error.is_timeout()) {
        (true, true) => ErrorKind::Timeout { after: connect_timeout },
        (true, false) => {
            let cause = root_cause(error).unwrap_or_else(|| "unknown cause".to_owned());
            ErrorKind::Unavailable(format!("cannot connect to the upstream: {cause}"))
        }
        (false, _) => broken(error),
    }
}

/// As [`unsent`], of a connection without TLS.
pub(super) fn unsent_plain(error: &plain::Error, connect_timeout: Duration) -> ErrorKind {
    match error {
        plain::Error::ConnectTimeout => ErrorKind::Timeout { after: connect_timeout },
        plain::Error::Connect(error) => {
            ErrorKind::Unavailable(format!("cannot connect to the upstream: {error}"))
        }
        plain::Error::Http(_) => broken_plain(error),
    }
}

/// A connection that broke while an answer was awaited or read.
pub(super) fn broken(error: &reqwest::Error) -> ErrorKind {
    let cause = root_cause(error).unwrap_or_else(|| "unknown cause".to_owned());
    ErrorKind::Unavailable(format!("the connection to the upstream broke: {cause}"))
}

/// As [`broken`], of a connection without TLS.
pub(super) fn broken_plain(error: &plain::Error) -> ErrorKind {
    let cause = root_cause(error).unwrap_or_else(|| error.to_string());
    ErrorKind::Unavailable(format!("the connection to the upstream broke: {cause}"))
}

/// The error within `body`: OpenAI's envelope, or the bare object of older vLLM.
pub(super) fn error_object(body: &Value) -> &Value {
    body.get("error").unwrap_or(body)
}

fn classify(status: u16, retry_after: Option<Duration>, error: &Value) -> ErrorKind {
    match status {
        401 | 403 => ErrorKind::Credentials { status },
        404 => ErrorKind::Unavailable(
            "the upstream knows no such model or path (HTTP 404): check base_url and model".into(),
        ),
        429 => ErrorKind::RateLimited { retry_after, reason: None },
        400 | 413 | 422 if error.is_null() => {
            ErrorKind::Protocol(format!("HTTP {status} without a JSON error"))
        }
        400 | 413 | 422 => {
            too_long(error).unwrap_or_else(|| request_fault(status, error).of_request())
        }
        _ => ErrorKind::UpstreamStatus { status, retry_after, reason: None },
    }
}

fn request_fault(status: u16, error: &Value) -> RequestFault {
    // Ollama writes the message itself where OpenAI has an object; FastAPI servers say `detail`.
    let message = [&error["message"], error, &error["detail"]].into_iter().find_map(Value::as_str);
    RequestFault {
        status: 400,
        message: message.map_or_else(
            || format!("the upstream refused the request (HTTP {status})"),
            |message| message.chars().take(MESSAGE_CHARS).collect(),
        ),
        param: error["param"].as_str().map(str::to_owned),
        code: error["code"].as_str().map(str::to_owned),
    }
}

/// A prompt beyond the context: llama-server reports both counts, OpenAI has a code, vLLM only a
/// sentence.
fn too_long(error: &Value) -> Option<ErrorKind> {
    let tokens = |field: &str| error[field].as_u64().and_then(|count| u32::try_from(count).ok());
    if let (Some(prompt_tokens), Some(context_tokens)) =
        (tokens("n_prompt_tokens"), tokens("n_ctx"))
    {
        return Some(ErrorKind::ContextExceeded { prompt_tokens, context_tokens });
    }
    let message = error["message"].as_str().unwrap_or_default();
    let says_so =
        error["code"] == CONTEXT_LENGTH_EXCEEDED || message.contains("maximum context length");
    says_so.then(|| {
        let code = Some(CONTEXT_LENGTH_EXCEEDED.to_owned());
        RequestFault { code, ..request_fault(400, error) }.of_model()
    })
}

/// `Retry-After`: seconds, or a date (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// The innermost cause: the operating system's or the TLS library's words, which hold no URL.
fn root_cause(error: &dyn Error) -> Option<String> {
    let mut cause = error.source();
    while let Some(inner) = cause.and_then(Error::source) {
        cause = Some(inner);
    }
    cause.map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(status: u16, body: &Value) -> ErrorKind {
        refused_bytes(status, body.to_string().as_bytes())
    }

    fn refused_bytes(status: u16, body: &[u8]) -> ErrorKind {
        let status = StatusCode::from_u16(status).unwrap();
        refused(status, &HeaderMap::new(), body, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn a_refused_key_is_not_repeated() {
        let body = json!({"error": {"message": "Incorrect API key provided: sk-abc", "code": "invalid_api_key"}});
        for status in [401, 403] {
            let kind = refusal(status, &body);
            assert_eq!(kind, ErrorKind::Credentials { status });
            assert!(!format!("{kind} {kind:?}").contains("sk-abc"));
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2026 07:28:00 GMT").unwrap();
        let cases = [
            ("17", Some(Duration::from_secs(17))),
            ("Wed, 21 Oct 2026 07:29:30 GMT", Some(Duration::from_secs(90))),
            ("Wed, 21 Oct 2026 07:00:00 GMT", Some(Duration::ZERO)),
            ("soon", None),
        ];
        for (value, expected) in cases {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            let kind = refused(StatusCode::TOO_MANY_REQUESTS, &headers, b"", now);
            assert_eq!(
                kind,
                ErrorKind::RateLimited { retry_after: expected, reason: None },
                "{value}"
            );
        }
    }

    #[test]
    fn a_wrong_request_keeps_the_upstreams_words_in_any_of_their_shapes() {
        let said = |body| match refusal(400, &body) {
            ErrorKind::InvalidRequest(fault) => {
                let RequestFault { message, param, code, .. } = *fault;
                (message, param, code)
            }
            other => panic!("{other:?}"),
        };
        let full = json!({"error": {"message": "no", "type": "invalid_request_error", "param": "n", "code": "bad"}});
        assert_eq!(said(full), ("no".into(), Some("n".into()), Some("bad".into())));
        let numbered = json!({"object": "error", "message": "no", "param": null, "code": 400});
        assert_eq!(said(numbered), ("no".into(), None, None));
        assert_eq!(said(json!({"error": "no"})).0, "no");
        assert_eq!(said(json!({"detail": "no"})).0, "no");
        assert_eq!(said(json!([])).0, "the upstream refused the request (HTTP 400)");
        assert_eq!(said(json!({"error": "x".repeat(5_000)})).0.len(), MESSAGE_CHARS);
    }

    #[test]
    fn too_long_a_prompt_may_be_tried_elsewhere() {
        let counted = json!({"error": {"code": 400, "message": "exceeds", "type": "exceed_context_size_error",
            "n_prompt_tokens": 9000, "n_ctx": 4096}});
        let exceeded = ErrorKind::ContextExceeded { prompt_tokens: 9000, context_tokens: 4096 };
        assert_eq!(refusal(400, &counted), exceeded);
        for error in [
            json!({"error": {"message": "too long", "code": "context_length_exceeded"}}),
            json!({"error": {"message": "This model's maximum context length is 4096 tokens.", "code": 400}}),
        ] {
            let kind = refusal(400, &error);
            let ErrorKind::Unsupported(fault) = &kind else { panic!("{kind:?}") };
            assert_eq!(fault.code.as_deref(), Some(CONTEXT_LENGTH_EXCEEDED));
            assert!(kind.another_could_answer());
        }
        assert!(!refusal(400, &json!({"error": {"message": "no"}})).another_could_answer());
    }

    #[test]
    fn every_other_status_has_its_kind() {
        let label = |status| refused_bytes(status, b"<html>oops</html>").label();
        let labels = [302, 400, 402, 404, 408, 422, 500, 503, 529].map(label);
        assert_eq!(
            labels,
            [
                "protocol",
                "protocol",
                "upstream_status",
                "unavailable",
                "upstream_status",
                "protocol",
                "upstream_status",
                "upstream_status",
                "upstream_status"
            ]
        );
    }

    #[test]
    fn an_error_inside_an_answer_is_classified_by_what_it_says() {
        let label = |error: Value| reported(&error).label();
        assert_eq!(label(json!({"message": "m", "type": "server_error"})), "upstream_status");
        assert_eq!(label(json!({"message": "m", "code": 502})), "upstream_status");
        assert_eq!(label(json!({"message": "m", "type": "rate_limit_error"})), "rate_limited");
        assert_eq!(label(json!({"message": "m", "code": 400})), "invalid_request");
        assert_eq!(label(json!("overloaded")), "upstream_status");
    }
}
