//! Refusals as upstreams write them, and what they mean.

use reqwest::header::RETRY_AFTER;
use serde_json::json;

use super::*;

fn refusal(status: u16, body: &Value) -> ErrorKind {
    refused_bytes(status, body.to_string().as_bytes())
}

fn refused_bytes(status: u16, body: &[u8]) -> ErrorKind {
    let status = StatusCode::from_u16(status).unwrap();
    refused(status, &HeaderMap::new(), body, SystemTime::UNIX_EPOCH)
}

/// Its label, and the status and code that a client sees.
fn told(kind: &ErrorKind) -> (&'static str, u16, Option<&str>) {
    match kind {
        ErrorKind::InvalidRequest(fault) | ErrorKind::Unsupported(fault) => {
            (kind.label(), fault.status, fault.code.as_deref())
        }
        _ => (kind.label(), 0, None),
    }
}

#[test]
fn a_refused_key_is_not_repeated() {
    let body = json!({"error": {"message": "Incorrect API key provided: sk-abc", "code": "invalid_api_key"}});
    for status in [400, 401, 403] {
        let kind = refusal(status, &body);
        assert_eq!(kind, ErrorKind::Credentials { status });
        assert!(!format!("{kind} {kind:?}").contains("sk-abc"));
    }
    let gemini = json!([{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.",
        "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}]);
    assert_eq!(refusal(400, &gemini), ErrorKind::Credentials { status: 400 });
    let echo = json!({"error": {"message": "no: you sent Bearer abcdefgh", "code": "sk-abcdefgh"}});
    for status in [400, 413, 429, 500] {
        let kind = refusal(status, &echo);
        assert!(!format!("{kind} {kind:?}").contains("abcdefgh"), "{kind:?}");
    }
}

#[test]
fn a_wait_is_kept_wherever_it_comes() {
    let headers = HeaderMap::from_iter([(RETRY_AFTER, "17".parse().unwrap())]);
    for status in [429, 503, 529, 500] {
        let status = StatusCode::from_u16(status).unwrap();
        let wait = match refused(status, &headers, b"", SystemTime::UNIX_EPOCH) {
            ErrorKind::RateLimited { retry_after, .. }
            | ErrorKind::UpstreamStatus { retry_after, .. } => retry_after,
            other => panic!("{other:?}"),
        };
        assert_eq!(wait, Some(Duration::from_secs(17)), "{status}");
    }
}

#[test]
fn a_wrong_request_keeps_the_upstreams_words() {
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
    assert_eq!(said(json!({"error": "x".repeat(5_000)})).0.len(), 1_000);
    let text = refused_bytes(400, b"prompt: wrong\n");
    assert_eq!((text.label(), &*text.to_string()), ("invalid_request", "prompt: wrong"));
}

#[test]
fn too_long_a_prompt_may_be_tried_elsewhere() {
    let counted = json!({"error": {"code": 400, "message": "exceeds", "type": "exceed_context_size_error",
        "n_prompt_tokens": 9000, "n_ctx": 4096}});
    let exceeded = ErrorKind::ContextExceeded { prompt_tokens: 9000, context_tokens: 4096 };
    assert_eq!(refusal(400, &counted), exceeded);
    for status in [400, 413, 422, 500] {
        for error in [
            json!({"error": {"message": "too long", "code": "context_length_exceeded"}}),
            json!({"error": {"message": "This model's maximum context length is 4096 tokens.", "code": 400}}),
        ] {
            let kind = refusal(status, &error);
            assert_eq!(told(&kind), ("unsupported", 400, Some(CONTEXT_LENGTH_EXCEEDED)));
        }
    }
    let groq = json!({"error": {"message": "Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 9000",
        "type": "tokens", "code": "rate_limit_exceeded"}});
    for status in [413, 429] {
        assert_eq!(
            told(&refusal(status, &groq)),
            ("unsupported", 413, Some("rate_limit_exceeded"))
        );
    }
}

#[test]
fn what_another_server_may_do_is_no_fault_of_the_request() {
    for (status, message, seen) in [
        (400, "The model is not multimodal.", ("unsupported", 400, None)),
        (404, "No endpoints found that support image input", ("unsupported", 404, None)),
        (404, "The model `x` does not exist", ("unsupported", 404, None)),
        (403, "Input was flagged", ("unsupported", 403, Some(CONTENT_FILTER))),
        (403, "Country, region, or territory not supported", ("unsupported", 403, None)),
        (403, "You have no permission to use this model", ("credentials", 0, None)),
        (
            400,
            "The response was filtered by the content management policy",
            ("unsupported", 400, Some(CONTENT_FILTER)),
        ),
        (409, "conflict", ("unsupported", 400, None)),
        (415, "wrong type", ("unsupported", 400, None)),
        (451, "not here", ("unsupported", 451, None)),
        (400, "no", ("invalid_request", 400, None)),
        (422, "no", ("invalid_request", 400, None)),
        (402, "no credits", ("upstream_status", 0, None)),
    ] {
        let kind = refusal(status, &json!({"error": {"message": message}}));
        assert_eq!(told(&kind), seen, "{status} {message}");
    }
}

#[test]
fn a_status_without_a_reason_has_its_kind() {
    let label = |status| {
        let page = refused_bytes(status, b"<html>oops</html>");
        assert!(!format!("{page:?}").contains("oops"), "a page is not repeated");
        (page.label(), refused_bytes(status, b"").label())
    };
    for status in [400, 404, 409, 411, 413, 415, 422, 451] {
        assert_eq!(label(status), ("unsupported", "unsupported"), "{status}");
    }
    for status in [402, 408, 500, 503, 529] {
        assert_eq!(label(status), ("upstream_status", "upstream_status"), "{status}");
    }
    assert_eq!(label(302), ("protocol", "protocol"));
    assert_eq!(label(401), ("credentials", "credentials"));
    // A firewall's page may be about the prompt.
    assert_eq!(label(403), ("unsupported", "credentials"));
    assert_eq!(label(429), ("rate_limited", "rate_limited"));
}

#[test]
fn an_error_inside_an_answer_is_classified_by_what_it_says() {
    let label = |error: Value| reported(&error).label();
    assert_eq!(label(json!({"message": "m", "type": "server_error"})), "upstream_status");
    assert_eq!(label(json!({"message": "m", "code": 502})), "upstream_status");
    assert_eq!(label(json!({"message": "m", "type": "rate_limit_error"})), "rate_limited");
    assert_eq!(label(json!({"message": "m", "code": "429"})), "rate_limited");
    assert_eq!(label(json!({"message": "m", "code": 400})), "invalid_request");
    assert_eq!(label(json!("overloaded")), "upstream_status");
    let unknown = reported(&json!({"message": "m", "code": 9999})).to_string();
    assert!(!unknown.contains("9999"), "{unknown}");
}

#[test]
fn options_that_the_gateway_adds_are_blamed_by_name() {
    let blamed = |status: u16, body: &str| {
        refuses_stream_options(StatusCode::from_u16(status).unwrap(), body.as_bytes())
    };
    let extra = r#"{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"]}]}"#;
    assert!(blamed(422, extra) && blamed(400, "Unknown parameter: 'stream_options'."));
    assert!(!blamed(500, extra) && !blamed(422, "no"));
}
