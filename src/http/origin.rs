//! Which web pages may use the gateway: a page of another origin that the user's browser shows
//! could otherwise spend the operator's energy and money unseen.
//!
//! Programs that are no browsers send no `Origin` and are not concerned.

use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};

use super::host::is_local_name;
use crate::validate::Diagnostics;

/// Stands for every origin.
const ANY: &str = "*";

/// Origins of `[server] cors_origins`, such as `https://chat.example.com`.
#[derive(Clone, Debug, Default)]
pub struct Origins(Vec<HeaderValue>);

impl Origins {
    /// Origins that are no header values were refused with the config.
    pub fn new(origins: &[String]) -> Self {
        Self(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn are_any(&self) -> bool {
        self.0.iter().any(|origin| origin == ANY)
    }

    pub fn listed(&self) -> &[HeaderValue] {
        &self.0
    }

    /// Whether a request may do what it asks for: any program's may, and those of pages of the
    /// gateway's own origin and of listed ones. Reading is for the browser to prevent.
    pub fn may_act(&self, method: &Method, headers: &HeaderMap) -> bool {
        method.is_safe() || self.are_any() || self.is_listed_or_own(headers)
    }

    /// As [`Self::may_act`] for orders of an operator: the origin must be listed by name.
    pub fn may_order(&self, headers: &HeaderMap) -> bool {
        self.is_listed_or_own(headers)
    }

    fn is_listed_or_own(&self, headers: &HeaderMap) -> bool {
        if let Some(origin) = headers.get(header::ORIGIN) {
            return self.0.contains(origin) || is_own(origin, headers);
        }
        let site = headers.get("sec-fetch-site");
        site.is_none_or(|site| site == "same-origin" || site == "none")
    }
}

/// Whether the page came from the gateway's own address. A foreign name that a browser was made to
/// resolve to this machine (DNS rebinding) is not the gateway's: only loopback names and literal
/// addresses are, since no other can be known here.
fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    let Some(authority) = origin.as_ref().and_then(Uri::authority) else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    host == Some(authority.as_str()) && is_local_name(authority.as_str())
}

/// Checks the list of a config.
pub(super) fn validate(origins: &[String], out: &mut Diagnostics) {
    let is_origin = |origin: &String| {
        let uri = origin.parse::<Uri>().ok();
        let is_bare = |uri: &Uri| {
            let (scheme, authority) = (uri.scheme_str(), uri.authority());
            let parts = scheme.zip(authority).map(|(s, a)| format!("{s}://{a}"));
            parts.as_ref() == Some(origin)
        };
        origin == ANY || origin == "null" || uri.as_ref().is_some_and(is_bare)
    };
    let rule = "must be \"*\" or origins such as \"https://chat.example.com\", without a path";
    out.rule("cors_origins", origins.iter().all(is_origin), rule);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn pages_of_other_origins_act_only_where_they_are_listed() {
        let listed = Origins::new(&["https://chat.example.com".to_owned()]);
        let any = Origins::new(&["*".to_owned()]);
        let own = ("host", "127.0.0.1:8080");
        for (pairs, allowed) in [
            (&[own][..], true),
            (&[own, ("sec-fetch-site", "none")], true),
            (&[own, ("sec-fetch-site", "cross-site")], false),
            (&[own, ("sec-fetch-site", "same-site")], false),
            (
                &[own, ("origin", "https://chat.example.com"), ("sec-fetch-site", "cross-site")],
                true,
            ),
            (&[own, ("origin", "http://chat.example.com")], false),
            (&[own, ("origin", "https://chat.example.com.evil.example")], false),
            (&[own, ("origin", "http://evil.example")], false),
            (&[own, ("origin", "null")], false),
            (&[own, ("origin", "http://127.0.0.1:8080")], true),
            (&[own, ("origin", "http://127.0.0.1:3000")], false),
            (&[("host", "localhost:8080"), ("origin", "http://localhost:8080")], true),
            (&[("host", "[::1]:8080"), ("origin", "http://[::1]:8080")], true),
            // After DNS rebinding.
            (&[("host", "evil.example:8080"), ("origin", "http://evil.example:8080")], false),
        ] {
            let headers = headers(pairs);
            assert_eq!(listed.may_act(&Method::POST, &headers), allowed, "{pairs:?}");
            assert!(listed.may_act(&Method::GET, &headers), "{pairs:?}");
            assert!(any.may_act(&Method::POST, &headers), "{pairs:?}");
            let own_or_none = allowed && !pairs.iter().any(|(_, value)| value.contains("chat."));
            assert_eq!(any.may_order(&headers), own_or_none, "{pairs:?}");
        }
    }
}
