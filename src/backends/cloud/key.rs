//! A secret that cannot be printed: it leaves only as a request header that the HTTP stack knows to
//! be sensitive.
//!
//! Reads no environment: the caller passes the key.

use std::fmt;

use reqwest::header::HeaderValue;

/// A shorter key stands in too many words by chance, and is none to keep secret.
const MASKED_BYTES_MIN: usize = 6;

/// The key of one upstream. Has no `Display`, and its `Debug` shows nothing.
#[derive(Clone)]
pub struct ApiKey(HeaderValue);

/// The key is empty or holds characters that no header may carry, such as a line break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the API key is empty or holds characters that a header cannot carry")]
pub struct InvalidApiKey;

impl ApiKey {
    /// Surrounding white space is dropped: keys are often read from files with a line end.
    pub fn new(secret: &str) -> Result<Self, InvalidApiKey> {
        let secret = secret.trim();
        if secret.is_empty() {
            return Err(InvalidApiKey);
        }
        let mut header =
            HeaderValue::try_from(format!("Bearer {secret}")).map_err(|_| InvalidApiKey)?;
        header.set_sensitive(true);
        Ok(Self(header))
    }

    /// The text with a mask where it holds the key.
    pub(super) fn masked_in(&self, text: &str) -> String {
        let header = self.0.to_str().unwrap_or_default();
        match header.strip_prefix("Bearer ") {
            Some(key) if key.len() >= MASKED_BYTES_MIN => text.replace(key, "[key]"),
            _ => text.to_owned(),
        }
    }

    /// The value of the `Authorization` header.
    pub(super) fn authorization(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_shows_itself_nowhere_but_in_the_header() {
        let key = ApiKey::new(" sk-secret\n").unwrap();
        assert_eq!(key.authorization(), "Bearer sk-secret");
        assert!(!format!("{key:?} {:?}", key.authorization()).contains("secret"));
    }

    #[test]
    fn a_message_can_be_shown_without_the_key() {
        let masked = |key, text| ApiKey::new(key).unwrap().masked_in(text);
        assert_eq!(masked("my-secret", "you sent my-secret, my-secret"), "you sent [key], [key]");
        assert_eq!(masked("any", "anything"), "anything");
    }

    #[test]
    fn a_key_that_no_header_can_carry_is_refused() {
        assert_eq!(ApiKey::new(" \n").unwrap_err(), InvalidApiKey);
        assert_eq!(ApiKey::new("sk\nX-Other: 1").unwrap_err(), InvalidApiKey);
    }
}
