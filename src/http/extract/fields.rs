//! JSON bodies with the path of a wrong field. Pure.

use serde::de::DeserializeOwned;

use crate::http::error::ApiError;

/// Reads a body, and says where it is wrong.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // Fields that are skipped go unread, and an upstream would get their bytes.
    std::str::from_utf8(body).map_err(|_| ApiError::NotJson("it is not UTF-8".to_owned()))?;
    serde_json::from_slice(body).map_err(|_| locate::<T>(body))
}

/// Parses again with the path tracked: slower, so only once it is known that something is wrong.
fn locate<T: DeserializeOwned>(body: &[u8]) -> ApiError {
    let mut json = serde_json::Deserializer::from_slice(body);
    let Err(error) = serde_path_to_error::deserialize::<_, T>(&mut json) else {
        return ApiError::NotJson("something follows the JSON object".to_owned());
    };
    let (param, inner) = (error.path().to_string(), error.into_inner());
    if inner.is_data() {
        ApiError::InvalidField { message: format!("`{param}`: {inner}"), param }
    } else {
        ApiError::NotJson(inner.to_string())
    }
}

/// A field whose value is of the right type and wrong all the same; `message` goes on after its
/// name.
pub fn wrong(param: &str, message: &str) -> ApiError {
    ApiError::InvalidField { param: param.to_owned(), message: format!("`{param}` {message}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::EmbeddingRequest;

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
