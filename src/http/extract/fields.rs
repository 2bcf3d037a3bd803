//! JSON bodies with the path of a wrong field. Pure.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;

use crate::http::error::ApiError;
use crate::routing::LocalFault;

/// Reads a body, and says where it is wrong.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // Fields that are skipped go unread, and an upstream would get their bytes.
    std::str::from_utf8(body).map_err(|_| ApiError::NotJson("it is not UTF-8".to_owned()))?;
    let is_object = body.trim_ascii_start().starts_with(b"{");
    match serde_json::from_slice(body) {
        Ok(value) if is_object => Ok(value),
        _ => Err(locate::<T>(body, is_object)),
    }
}

/// Reads the object at `path` of a body; errors name fields from the body's root on.
pub fn read_at<T: DeserializeOwned>(value: &RawValue, path: &str) -> Result<T, ApiError> {
    let from_root = |inner: &str| match inner {
        "" | "." => path.to_owned(),
        field => format!("{path}.{field}"),
    };
    read(value.get().as_bytes()).map_err(|error| match error {
        ApiError::InvalidField { param, .. } if param.is_empty() => {
            wrong(path, "must be a JSON object")
        }
        ApiError::InvalidField { param: inner, message } => {
            let (from, param) = (format!("`{inner}`"), from_root(&inner));
            let message = message.replacen(&from, &format!("`{param}`"), 1);
            ApiError::InvalidField { message, param }
        }
        ApiError::RepeatedField(inner) => ApiError::RepeatedField(from_root(&inner)),
        other => other,
    })
}

/// Parses again with the path tracked: slower, so only once it is known that something is wrong.
fn locate<T: DeserializeOwned>(body: &[u8], is_object: bool) -> ApiError {
    if !is_object && serde_json::from_slice::<IgnoredAny>(body).is_ok() {
        let message = "the body must be a JSON object".to_owned();
        return ApiError::InvalidField { message, param: String::new() };
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let Err(error) = serde_path_to_error::deserialize::<_, T>(&mut json) else {
        return ApiError::NotJson("something follows the JSON object".to_owned());
    };
    let (path, inner) = (error.path().to_string(), error.into_inner());
    if !inner.is_data() {
        return ApiError::NotJson(inner.to_string());
    }
    let text = inner.to_string();
    // The path ends at the object that lacks the field, or has it twice.
    let named = |problem: &str| {
        let field = text.strip_prefix(problem)?.split('`').next()?;
        Some(if path == "." { field.to_owned() } else { format!("{path}.{field}") })
    };
    if let Some(param) = named("missing field `") {
        return ApiError::InvalidField { message: format!("missing field `{param}`"), param };
    }
    match named("duplicate field `") {
        Some(param) => ApiError::RepeatedField(param),
        None => ApiError::InvalidField { message: format!("`{path}`: {text}"), param: path },
    }
}

/// A field whose value is of the right type and wrong all the same; `message` goes on after its
/// name.
pub fn wrong(param: &str, message: &str) -> ApiError {
    ApiError::InvalidField { param: param.to_owned(), message: format!("`{param}` {message}") }
}

/// A field of a service that only the maker of the surface has.
pub fn unsupported(param: &str) -> ApiError {
    let message = format!("`{param}` is not supported here");
    let param = param.to_owned();
    ApiError::LocalFault(LocalFault { param, message, code: "unsupported_parameter" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::{ChatRequest, EmbeddingRequest};

    #[test]
    fn an_error_names_the_field_that_is_missing_wrong_or_there_twice() {
        let fault = |body: &str| match read::<ChatRequest>(body.as_bytes()).unwrap_err() {
            ApiError::InvalidField { param, message } => (param, message),
            ApiError::RepeatedField(param) => (param, "twice".to_owned()),
            other => (String::new(), other.to_string()),
        };
        for (body, param, message) in [
            ("{}", "model", "missing field `model`"),
            (r#"{"model":"m"}"#, "messages", "missing field `messages`"),
            (r#"{"model":7}"#, "model", "invalid type"),
            (
                r#"{"model":"m","messages":[],"tools":[{"function":null}]}"#,
                "tools[0].type",
                "missing field `tools[0].type`",
            ),
            (r#"{"model":"m","n":1,"n":2,"messages":[]}"#, "n", "twice"),
            (
                r#"{"model":"m","messages":[{"role":"user","role":"user"}]}"#,
                "messages[0].role",
                "twice",
            ),
            (r#"{"model":"m","messages":[],"logit_bias":{"hello":1}}"#, "logit_bias", "token ids"),
            (
                r#"{"model":"m","messages":[],"stream_options":[]}"#,
                "stream_options",
                "stream_options",
            ),
            (r#"["m",[]]"#, "", "must be a JSON object"),
            ("7", "", "must be a JSON object"),
            (r#"{"model":"m","messages":[]} {}"#, "", "not valid JSON"),
            ("", "", "not valid JSON"),
        ] {
            let (at, says) = fault(body);
            assert_eq!(at, param, "{body}: {says}");
            assert!(says.contains(message), "{body}: {says}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_also_in_fields_that_are_skipped() {
        // Regression, found by fuzzing: they were forwarded.
        let body = |text: &[u8]| [br#"{"model":"m","input":"a","x":""#, text, br#""}"#].concat();
        assert!(read::<EmbeddingRequest>(&body("é".as_bytes())).is_ok());
        for text in [b"\xff".as_slice(), b"\xc3", b"\xed\xa0\x80"] {
            let error = read::<EmbeddingRequest>(&body(text)).unwrap_err();
            assert!(matches!(error, ApiError::NotJson(_)), "{error}");
        }
    }
}
