//! Rules shared by the config tables of polled servers: URL, interval, timeout. Pure.

use reqwest::Url;

use crate::validate::Diagnostics;

/// The rule of a URL.
pub const URL_RULE: &str =
    "must be an http(s) URL without user name and password, as in http://10.0.0.5:9090";

pub fn validate_url(url: &str, out: &mut Diagnostics) {
    out.rule("url", http_url(url).is_some(), URL_RULE);
}

/// Parses an HTTP(S) URL; `None` for others and for one with user name or password.
pub fn http_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && plain).then_some(url)
}

/// How often a sensor asks, and how long it waits.
pub fn validate_pace(every_ms: u64, timeout_ms: u64, out: &mut Diagnostics) {
    out.range("every_ms", every_ms, 500..=60_000, " milliseconds");
    validate_timeout(timeout_ms, out);
}

pub fn validate_timeout(timeout_ms: u64, out: &mut Diagnostics) {
    out.range("timeout_ms", timeout_ms, 100..=30_000, " milliseconds");
}
