//! The content type of requests that cost or change something. Pure.
//!
//! A page of any origin can send text and forms without asking first, but no JSON.

use axum::http::{HeaderMap, header};

use crate::http::error::ApiError;

/// Refuses bodies that say they are something else than JSON, and of browsers those that say
/// nothing. Programs that send no type are taken at their word.
pub fn check(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter().peekable();
    let given = types.peek().is_some() || !of_browser(headers);
    let is_json = |kind: &[u8]| {
        let kind = kind.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        let kind = kind.to_ascii_lowercase();
        kind == b"application/json" || kind == b"text/json" || kind.ends_with(b"+json")
    };
    if given && types.all(|kind| is_json(kind.as_bytes())) {
        Ok(())
    } else {
        Err(ApiError::NotJsonType)
    }
}

/// Headers that scripts in a page cannot leave out.
fn of_browser(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| *name == header::ORIGIN || name.as_str().starts_with("sec-fetch-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_passes_and_of_browsers_nothing_else() {
        for (pairs, passes) in [
            (&[][..], true),
            (&[("content-type", "application/json")], true),
            (&[("content-type", "Application/JSON ; charset=utf-8")], true),
            (&[("content-type", "application/vnd.api+json"), ("origin", "null")], true),
            (&[("content-type", "text/plain")], false),
            (&[("content-type", "text/plain;x=application/json")], false),
            (&[("content-type", "application/x-www-form-urlencoded")], false),
            (&[("content-type", "multipart/form-data; boundary=x")], false),
            (&[("content-type", "")], false),
            (&[("content-type", "application/json"), ("content-type", "text/plain")], false),
            (&[("origin", "http://localhost:8080")], false),
            (&[("sec-fetch-site", "same-origin")], false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            assert_eq!(check(&headers).is_ok(), passes, "{pairs:?}");
        }
    }
}
