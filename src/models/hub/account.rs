//! The hub's address and token, from the environment or from the login of the hub's own tools.
//!
//! Reads variables and one file; sends nothing.

use std::env;
use std::fs;
use std::path::PathBuf;

use reqwest::Url;
use reqwest::header::HeaderValue;

use super::super::error::PullError;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// The server of `HF_ENDPOINT`, by default the public hub.
pub(super) fn endpoint() -> Result<Url, PullError> {
    endpoint_of(&env::var("HF_ENDPOINT").unwrap_or_default())
}

/// The token of `HF_TOKEN`, or else of the hub tools' login (`token` in `HF_HOME`). `None` without
/// one.
pub(super) fn token() -> Result<Option<HeaderValue>, PullError> {
    let variable = env::var("HF_TOKEN").ok().filter(|token| !token.trim().is_empty());
    let login = || fs::read_to_string(home()?.join("token")).ok();
    authorization(&variable.or_else(login).unwrap_or_default())
}

fn home() -> Option<PathBuf> {
    let named = env::var_os("HF_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    named.or_else(|| Some(env::home_dir()?.join(".cache/huggingface")))
}

fn endpoint_of(text: &str) -> Result<Url, PullError> {
    let text = if text.is_empty() { DEFAULT_ENDPOINT } else { text };
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or(PullError::Variable { name: "HF_ENDPOINT", reason: "is not an http(s) URL" })
}

/// White space around the token is dropped: files end with a line break.
fn authorization(token: &str) -> Result<Option<HeaderValue>, PullError> {
    let token = token.trim();
    if token.is_empty() {
        return Ok(None);
    }
    let mut value =
        HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| PullError::Variable {
            name: "HF_TOKEN",
            reason: "holds characters that no HTTP header may have",
        })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_defaults_to_the_public_hub_and_must_be_http() {
        assert_eq!(endpoint_of("").unwrap().host_str(), Some("huggingface.co"));
        assert_eq!(endpoint_of("http://127.0.0.1:81/hf").unwrap().port(), Some(81));
        for text in ["hub.example.com", "ftp://hub.example.com", "http://"] {
            assert!(matches!(endpoint_of(text), Err(PullError::Variable { .. })), "{text}");
        }
    }

    #[test]
    fn a_token_is_trimmed_hidden_from_logs_and_checked() {
        assert_eq!(authorization(" \n").unwrap(), None);
        let value = authorization(" hf_secret\n").unwrap().unwrap();
        assert_eq!(value, "Bearer hf_secret");
        assert!(!format!("{value:?}").contains("secret"));
        let error = authorization("hf\nX-Other: 1").unwrap_err();
        assert!(!error.to_string().contains("X-Other"), "{error}");
    }
}
