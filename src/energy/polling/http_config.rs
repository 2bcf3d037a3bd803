//! Rules shared by the config tables of polled servers: URL, interval, timeout. Pure.

use reqwest::Url;

/// A rule of a key: whether it holds, the key, and the message if not.
pub type Rule = (bool, &'static str, &'static str);

/// The keys whose rules do not hold, with the messages.
pub fn broken(rules: impl IntoIterator<Item = Rule>) -> Vec<(&'static str, String)> {
    let broken = rules.into_iter().filter(|(kept, ..)| !kept);
    broken.map(|(_, key, why)| (key, why.to_owned())).collect()
}

/// The rule of a URL.
pub const URL_RULE: &str =
    "must be an http(s) URL without user name and password, as in http://10.0.0.5:9090";

pub fn url_rule(url: &str) -> Rule {
    (http_url(url).is_some(), "url", URL_RULE)
}

/// Parses an HTTP(S) URL; `None` for others and for one with user name or password.
pub fn http_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && plain).then_some(url)
}

/// The rule of a sensor's poll interval.
pub fn every_rule(every_ms: u64) -> Rule {
    ((500..=60_000).contains(&every_ms), "every_ms", "must be 500 to 60000 milliseconds")
}

pub fn timeout_rule(timeout_ms: u64) -> Rule {
    ((100..=30_000).contains(&timeout_ms), "timeout_ms", "must be 100 to 30000 milliseconds")
}
