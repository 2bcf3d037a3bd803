//! What the words of an error mean, beyond its status. Pure.

use super::said::Said;
use crate::backends::backend::CONTEXT_LENGTH_EXCEEDED;

/// Words of a code, type or status, and the HTTP status that they stand for.
const STATUSES: [(u16, &[&str]); 10] = [
    (
        429,
        &[
            "rate_limit_exceeded",
            "rate_limit_error",
            "rate_limit_reached",
            "rate_limited",
            "ratelimiterror",
            "too_many_requests",
            "toomanyrequests",
            "throttlingexception",
            "resource_exhausted",
            "insufficient_quota",
            "billing_hard_limit_reached",
            "quota_exceeded",
            "requests",
            "tokens",
            // Zhipu's codes.
            "1302",
            "1303",
            "1305",
        ],
    ),
    (
        503,
        &[
            "overloaded_error",
            "overloaded",
            "model_overloaded",
            "engine_overloaded_error",
            "server_overloaded",
            "service_unavailable",
            "service_unavailable_error",
            "serviceunavailableerror",
            "unavailable",
        ],
    ),
    (
        400,
        &[
            "invalid_request_error",
            "bad_request",
            "bad_request_error",
            "badrequesterror",
            "invalid_argument",
            "invalid_value",
            "validation_error",
            CONTEXT_LENGTH_EXCEEDED,
            "exceed_context_size_error",
            "content_filter",
            "content_policy_violation",
            "unsupported_parameter",
            "unsupported_value",
            "unknown_parameter",
        ],
    ),
    (401, &["authentication_error", "invalid_api_key", "api_key_invalid", "unauthenticated"]),
    (402, &["insufficient_balance", "insufficient_credits", "payment_required", "billing_error"]),
    (403, &["permission_error", "permission_denied"]),
    (404, &["not_found_error", "notfounderror", "model_not_found", "not_found"]),
    (413, &["request_too_large"]),
    (504, &["timeout", "timeout_error", "request_timeout", "deadline_exceeded"]),
    (
        500,
        &[
            "server_error",
            "api_error",
            "internal_error",
            "internal_server_error",
            "internalservererror",
            "internal",
        ],
    ),
];

/// The status of an error that came with none of its own: a number where a server wrote one, else
/// what its words stand for.
pub(super) fn status_of(said: &Said) -> u16 {
    let number = said
        .names()
        .find_map(|name| name.parse().ok().filter(|status| (400..600).contains(status)));
    let named = || {
        said.names().find_map(|name| {
            let row = STATUSES.iter().find(|(_, names)| names.contains(&&*name));
            row.map(|(status, _)| *status)
        })
    };
    number.or_else(named).unwrap_or(500)
}

/// Whether the server refuses the gateway's key.
pub(super) fn is_about_the_key(said: &Said) -> bool {
    const NAMES: [&str; 6] = [
        "invalid_api_key",
        "api_key_invalid",
        "authentication_error",
        "unauthenticated",
        "permission_error",
        "permission_denied",
    ];
    const WORDS: [&str; 11] = [
        "api key",
        "api-key",
        "api_key",
        "apikey",
        "credential",
        "permission",
        "unauthorized",
        "not authorized",
        "access token",
        "authentication",
        "subscription key",
    ];
    said.names().any(|name| NAMES.contains(&&*name)) || has_any(&said.words(), &WORDS)
}

/// As [`is_about_the_key`], where the status says that the request is wrong: a prompt may speak of
/// keys as well.
pub(super) fn is_surely_about_the_key(said: &Said) -> bool {
    const NAMES: [&str; 4] =
        ["invalid_api_key", "api_key_invalid", "authentication_error", "unauthenticated"];
    const WORDS: [&str; 4] =
        ["api key not valid", "api key not found", "invalid api key", "incorrect api key"];
    said.names().any(|name| NAMES.contains(&&*name)) || has_any(&said.words(), &WORDS)
}

/// Whether the server judges what the prompt is about.
pub(super) fn is_moderation(said: &Said) -> bool {
    const WORDS: [&str; 9] = [
        "moderation",
        "flagged",
        "content_filter",
        "content filter",
        "content_policy",
        "content policy",
        "content management policy",
        "safety",
        "responsibleai",
    ];
    has_any(&said.words(), &WORDS)
}

/// Whether the request asks for more at once than the account may ever have at once.
pub(super) fn is_beyond_the_limit(said: &Said) -> bool {
    has_any(&said.words(), &["request too large"])
}

/// Whether the server lacks something that the request needs and another one may have.
pub(super) fn is_a_lack(said: &Said) -> bool {
    const WORDS: [&str; 31] = [
        "not support",
        "unsupported",
        "only support",
        "not multimodal",
        "not a multimodal",
        "tool choice requires",
        "extra_forbidden",
        "extra inputs are not permitted",
        "extra fields not permitted",
        "unknown_parameter",
        "unknown parameter",
        "unknown field",
        "unknown name",
        "unrecognized request argument",
        "unrecognized field",
        "unexpected keyword argument",
        "model_not_found",
        "model not found",
        "unknown model",
        "no such model",
        "invalid model",
        "not a valid model",
        "not a chat model",
        "model does not exist",
        "no endpoints",
        "not implemented",
        "not enabled",
        "is not available",
        "may be provided in one",
        "at most 0 ",
        "string_above_max_length",
    ];
    has_any(&said.words(), &WORDS)
}

fn has_any(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_status_is_a_number_or_a_word() {
        for (error, status) in [
            (json!({"code": 502}), 502),
            (json!({"code": "429"}), 429),
            (json!({"code": "rate_limit_exceeded", "type": "requests"}), 429),
            (json!({"type": "insufficient_quota", "code": "insufficient_quota"}), 429),
            (json!({"type": "overloaded_error"}), 503),
            (json!({"code": "1302"}), 429),
            (json!({"code": 1302, "type": "x"}), 429),
            (json!({"code": 9999}), 500),
            (json!({"status": "RESOURCE_EXHAUSTED"}), 429),
            (json!({"type": "invalid_request_error", "code": null}), 400),
            (json!({"type": "BadRequestError", "code": 400}), 400),
            (json!({"type": "authentication_error"}), 401),
            (json!({"code": "x", "type": "server_error"}), 500),
            (json!("text"), 500),
            (json!({}), 500),
        ] {
            assert_eq!(status_of(&Said::of(&error)), status, "{error}");
        }
    }

    #[test]
    fn lacks_are_told_from_mistakes() {
        let lacks = |message: &str| is_a_lack(&Said::of(&json!({"message": message})));
        for message in [
            "The model is not multimodal.",
            "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set",
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            "Unsupported value: 'temperature' does not support 0.2 with this model.",
            "Unknown parameter: 'x'.",
            "Unrecognized request argument supplied: x",
            "x: Extra inputs are not permitted",
            "No endpoints found that support image input",
            "Invalid JSON payload received. Unknown name \"x\": Cannot find field.",
            "At most 0 image(s) may be provided in one prompt.",
            "`llava` does not support tools",
            "invalid model ID",
        ] {
            assert!(lacks(message), "{message}");
        }
        for message in [
            "Invalid 'messages': empty array.",
            "no",
            "Invalid type for 'temperature': expected a decimal.",
            "An assistant message with 'tool_calls' must be followed by tool messages.",
        ] {
            assert!(!lacks(message), "{message}");
        }
        let coded = |code: Value| is_a_lack(&Said::of(&json!({"message": "no", "code": code})));
        assert!(coded(json!("model_not_found")) && coded(json!("unsupported_parameter")));
        assert!(!coded(json!("invalid_value")));
    }
}
