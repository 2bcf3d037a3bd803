//! Who may give orders to `/admin`, and how.
//!
//! This machine may, who has the operator's key, and who may open the operator's socket. Behind a
//! proxy every peer looks local, so a request that shows any trace of one needs the key.

use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::error::ApiError;
use super::host::is_local_name;
use super::peer::Peer;

/// Who may give orders.
#[derive(Clone, Debug, Default)]
pub struct OperatorAccess {
    allow_remote: bool,
    /// SHA-256 of the key, so that comparing takes as long for any key.
    key: Option<Bytes>,
}

impl OperatorAccess {
    pub fn new(allow_remote: bool, key: Option<&str>) -> Self {
        Self { allow_remote, key: key.filter(|key| !key.is_empty()).map(digest) }
    }

    /// Refuses an order that does not come from this machine and has no key.
    pub fn check(&self, peer: Peer, headers: &HeaderMap) -> Result<(), ApiError> {
        let Peer::Address(peer) = peer else { return Ok(()) };
        let proxied = headers.keys().any(|name| is_of_proxies(name.as_str()));
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let local = peer.ip().to_canonical().is_loopback() && host.is_none_or(is_local_name);
        if self.has_key(headers) || (!proxied && (local || self.allow_remote)) {
            return Ok(());
        }
        let message = "/admin is for this machine, and through proxies for the key of [admin] key_env or over [admin] socket; \
             [admin] allow_remote = true opens it to other machines that are no proxies";
        Err(ApiError::Admin {
            status: StatusCode::FORBIDDEN,
            code: "not_local",
            message: message.to_owned(),
        })
    }

    fn has_key(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.split_once(' '));
        match (&self.key, given) {
            (Some(key), Some((scheme, given))) => {
                scheme.eq_ignore_ascii_case("bearer") && digest(given.trim()) == *key
            }
            _ => false,
        }
    }
}

fn digest(key: &str) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(key))
}

/// Words in names of headers that proxies, balancers and content networks add.
const WORDS: [&str; 17] = [
    "via",
    "connecting",
    "cf",
    "cdn",
    "cloudfront",
    "envoy",
    "amzn",
    "amz",
    "azure",
    "appengine",
    "fastly",
    "fly",
    "akamai",
    "varnish",
    "traefik",
    "nginx",
    "arr",
];

/// Beginnings of such words: `forwarded`, `proxied`.
const STEMS: [&str; 2] = ["forward", "prox"];

/// Whether a header is of a kind that proxies add. By the words of its name: there are too many of
/// them for a list.
fn is_of_proxies(name: &str) -> bool {
    let words = || name.split(['-', '_']);
    let has = |word: &str| words().any(|own| own == word);
    // The peer's address by another's word: `x-real-ip`, `true-client-ip`, `x-original-host`.
    let of_another = ["real", "client", "remote", "original", "source", "cluster", "true", "user"];
    let address = ["ip", "addr", "address", "host", "port", "proto", "url", "uri"];
    words().any(|word| WORDS.contains(&word) || STEMS.iter().any(|stem| word.starts_with(stem)))
        || (of_another.iter().any(|word| has(word)) && address.iter().any(|word| has(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(access: &OperatorAccess, peer: &str, headers: &[(&'static str, &str)]) -> bool {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        access.check(Peer::Address(peer.parse().unwrap()), &headers.collect()).is_ok()
    }

    #[test]
    fn only_this_machine_may_give_orders() {
        let (own, remote) = (OperatorAccess::default(), OperatorAccess::new(true, None));
        assert!(allowed(&own, "127.0.0.1:5", &[]) && allowed(&own, "[::1]:5", &[]));
        assert!(allowed(&own, "[::ffff:127.0.0.1]:5", &[]));
        assert!(!allowed(&own, "10.0.0.1:5", &[]));
        assert!(!allowed(&own, "127.0.0.1:5", &[("x-forwarded-for", "10.0.0.1")]));
        assert!(allowed(&remote, "10.0.0.1:5", &[]));
    }

    #[test]
    fn a_foreign_name_and_a_proxy_are_not_this_machine() {
        let (own, remote) = (OperatorAccess::default(), OperatorAccess::new(true, None));
        assert!(allowed(&own, "127.0.0.1:5", &[("host", "localhost:8080")]));
        assert!(allowed(&own, "127.0.0.1:5", &[("host", "[::1]:8080")]));
        assert!(!allowed(&own, "127.0.0.1:5", &[("host", "evil.example:8080")]));
        assert!(allowed(&remote, "10.0.0.1:5", &[("host", "gateway.example")]));
        for name in [
            "forwarded",
            "via",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-real-ip",
            "cf-connecting-ip",
            "true-client-ip",
            "x-forwarded-prefix",
            "x_forwarded_for",
            "x-client-ip",
            "x-cluster-client-ip",
            "x-original-forwarded-for",
            "x-original-host",
            "x-envoy-external-address",
            "x-amzn-trace-id",
            "x-amz-cf-id",
            "x-azure-clientip",
            "fastly-client-ip",
            "fly-client-ip",
            "cdn-loop",
            "cf-ray",
            "x-proxyuser-ip",
            "x-remote-addr",
            "x-appengine-user-ip",
            "x-varnish",
            "proxy-authorization",
            "x-arr-log-id",
        ] {
            for access in [&own, &remote] {
                assert!(!allowed(access, "127.0.0.1:5", &[(name, "x")]), "{name}");
            }
        }
        for name in ["accept", "user-agent", "x-request-id", "traceparent", "x-wattgate-floor"] {
            assert!(allowed(&own, "127.0.0.1:5", &[(name, "x")]), "{name}");
        }
    }

    #[test]
    fn the_key_opens_it_from_anywhere() {
        let access = OperatorAccess::new(false, Some("s3cret"));
        let via = ("via", "1.1 proxy");
        for (value, opens) in [
            ("Bearer s3cret", true),
            ("bearer s3cret", true),
            ("Bearer s3cre", false),
            ("s3cret", false),
            ("Bearer ", false),
        ] {
            assert_eq!(allowed(&access, "10.0.0.1:5", &[via, ("authorization", value)]), opens);
        }
        assert!(!allowed(&access, "10.0.0.1:5", &[via]));
        let empty = OperatorAccess::new(false, Some(""));
        assert!(!allowed(&empty, "10.0.0.1:5", &[("authorization", "Bearer ")]));
    }
}
