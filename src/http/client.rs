//! Who sends a request, for what clients share: the peer's address, and its API key.
//!
//! Neither `user` nor a forwarded address counts: a client could invent them. Both parts are hashes
//! with a key of this process, so that they say nothing elsewhere.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::peer::Peer;
use crate::shares::Client;

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Header of a key for Anthropic's API.
const ANTHROPIC_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A client has a /64 of IPv6 for itself.
const HOST_BITS: u32 = 64;

/// The client of a connection, before any request.
pub fn of_peer(peer: Peer) -> Client {
    let network = match peer {
        Peer::Operator => None,
        Peer::Address(address) => Some(match address.ip().to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) if address.is_loopback() => address.to_bits(),
            IpAddr::V6(address) => address.to_bits() >> HOST_BITS << HOST_BITS,
        }),
    };
    Client { network: HASHER.hash_one(network), key: None }
}

/// What a request shows of its client's key: OpenAI's header, or Anthropic's.
pub fn credentials(headers: &HeaderMap) -> Option<&[u8]> {
    let key = headers.get(header::AUTHORIZATION).or_else(|| headers.get(ANTHROPIC_KEY));
    key.map(HeaderValue::as_bytes)
}

/// The client of a request.
pub fn of_request(peer: Peer, headers: &HeaderMap) -> Client {
    let key = credentials(headers).map(|key| HASHER.hash_one(key));
    Client { key, ..of_peer(peer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_keys_tell_clients_apart() {
        let address = |text: &str| Peer::Address(text.parse().unwrap());
        let peer = |text: &str| of_peer(address(text));
        assert_eq!(peer("10.0.0.1:5"), peer("[::ffff:10.0.0.1]:6"));
        assert_ne!(peer("10.0.0.1:5"), peer("10.0.0.2:5"));
        assert_eq!(peer("[2001:db8::1]:5"), peer("[2001:db8::2:3]:5"));
        assert_ne!(peer("[2001:db8::1]:5"), peer("[2001:db8:0:1::1]:5"));
        let with = |key: &str| {
            let headers = [(header::AUTHORIZATION, key.parse().unwrap())];
            of_request(address("10.0.0.1:5"), &headers.into_iter().collect())
        };
        assert_eq!(with("Bearer a"), with("Bearer a"));
        assert_ne!(with("Bearer a"), with("Bearer b"));
        let anthropic = |key: &str| {
            let headers = [(ANTHROPIC_KEY, key.parse().unwrap())];
            of_request(address("10.0.0.1:5"), &headers.into_iter().collect())
        };
        assert_eq!(anthropic("a"), anthropic("a"));
        assert_ne!(anthropic("a"), anthropic("b"));
        assert_eq!(with("Bearer a").network, peer("10.0.0.1:5").network);
    }
}
