//! The names by which the gateway may be called.
//!
//! A page can make its own name stand for this machine (DNS rebinding) and then counts as the
//! gateway's own page. Names that no stranger's DNS answers for are let in, and listed ones.

use std::borrow::Cow;
use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, Version, header};

use super::error::ApiError;
use crate::validate::Diagnostics;

/// Stands for every name.
const ANY: &str = "*";

/// Ends of names that public DNS does not know.
const PRIVATE: [&str; 5] = [".local", ".internal", ".lan", ".home.arpa", ".test"];

/// `[server] hosts`.
#[derive(Clone, Debug, Default)]
pub struct Hosts(Vec<String>);

impl Hosts {
    pub fn new(names: &[String]) -> Self {
        Self(names.iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Refuses a request that calls the gateway by another name, by several, or by none.
    pub fn check(&self, version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let mut given = headers.get_all(header::HOST).iter();
        let header = given.next();
        if given.next().is_some() {
            return Err(ApiError::InvalidHost("the header `host` is there twice"));
        }
        if header.is_none() && uri.authority().is_none() && version > Version::HTTP_10 {
            return Err(ApiError::InvalidHost("the header `host` is missing"));
        }
        let header = match header {
            Some(header) => Some(Authority::try_from(header.as_bytes()).map_err(|_| INVALID)?),
            None => None,
        };
        for name in header.as_ref().into_iter().chain(uri.authority()) {
            if name.as_str().contains('@') {
                return Err(INVALID);
            }
            if !self.holds(name.host()) {
                return Err(ApiError::ForeignHost);
            }
        }
        Ok(())
    }

    fn holds(&self, host: &str) -> bool {
        let name = bare(host);
        let is_private = || PRIVATE.iter().any(|end| name.ends_with(end)) || !name.contains('.');
        is_private()
            || is_local_name(host)
            || self.0.iter().any(|listed| listed == ANY || *listed == name)
    }
}

const INVALID: ApiError = ApiError::InvalidHost("the header `host` is not a name with a port");

/// Whether a `Host` stands for this machine, or for an address that no stranger's DNS answers for.
pub fn is_local_name(host: &str) -> bool {
    let name = bare(host);
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

/// The name without its port, brackets and final dot.
fn bare(host: &str) -> Cow<'_, str> {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.');
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        name.to_ascii_lowercase().into()
    } else {
        name.into()
    }
}

/// Checks the list of a config.
pub(super) fn validate(hosts: &[String], out: &mut Diagnostics) {
    let is_name = |name: &String| {
        name == ANY || name.parse::<Authority>().is_ok_and(|whole| whole.host() == name)
    };
    let rule = "must be \"*\" or names such as \"gateway.example.com\", without a port";
    out.rule("hosts", hosts.iter().all(is_name), rule);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listed: &[&str], uri: &str, hosts: &[&str]) -> Result<(), ApiError> {
        let listed: Vec<String> = listed.iter().map(|&name| name.to_owned()).collect();
        let pairs = hosts.iter().map(|host| (header::HOST, host.parse().unwrap()));
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        Hosts::new(&listed).check(Version::HTTP_11, &uri.parse().unwrap(), &headers)
    }

    #[test]
    fn names_that_are_local_are_known() {
        for name in
            ["localhost", "LOCALHOST:80", "app.localhost", "127.0.0.1", "[::1]:5", "10.0.0.1:5"]
        {
            assert!(is_local_name(name), "{name}");
        }
        for name in ["evil.example", "localhost.evil.example:80", "127.0.0.1.evil.example", ""] {
            assert!(!is_local_name(name), "{name}");
        }
    }

    #[test]
    fn names_of_public_dns_must_be_listed() {
        for host in [
            "127.0.0.1:8080",
            "[::1]:1",
            "localhost",
            "gateway",
            "gateway:8080",
            "node.local",
            "gateway.ns.svc.cluster.local:80",
            "x",
            "10.1.2.3",
        ] {
            assert_eq!(check(&[], "/", &[host]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "EVIL.example.",
            "127.0.0.1.nip.io",
            "localhost.evil.example",
            "local.evil.example",
        ] {
            assert_eq!(check(&[], "/", &[host]), Err(ApiError::ForeignHost), "{host}");
            assert_eq!(check(&["*"], "/", &[host]), Ok(()), "{host}");
        }
        assert_eq!(check(&["Gateway.example"], "/", &["gateway.example:1"]), Ok(()));
        assert_eq!(check(&[], "http://evil.example/", &["localhost"]), Err(ApiError::ForeignHost));
        assert_eq!(check(&[], "http://localhost/", &["evil.example"]), Err(ApiError::ForeignHost));
    }

    #[test]
    fn a_name_is_there_once_and_is_one() {
        for hosts in
            [&[][..], &["a", "a"], &["a", "b"], &[""], &["a b"], &["u@localhost"], &["a/b"]]
        {
            assert!(
                matches!(check(&["*"], "/", hosts), Err(ApiError::InvalidHost(_))),
                "{hosts:?}"
            );
        }
        let none = HeaderMap::new();
        let uri = Uri::from_static("/");
        assert_eq!(Hosts::default().check(Version::HTTP_10, &uri, &none), Ok(()));
        let uri = Uri::from_static("http://localhost/");
        assert_eq!(Hosts::default().check(Version::HTTP_2, &uri, &none), Ok(()));
    }
}
