//! JSON bodies with the path of a wrong field. Pure.

use serde::de::DeserializeOwned;

use crate::http::error::ApiError;

/// Reads a body, and says where it is wrong.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
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
