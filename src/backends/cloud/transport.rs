//! How requests reach an upstream: plain HTTP/1.1 where that is possible, else `reqwest`, which
//! knows TLS, HTTP/2 and proxies.
//!
//! Knows nothing of what the bytes mean.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body_util::Full;
use reqwest::{Client, Url};

use super::config::{BaseUrlError, Config};
use super::failure;
use super::plain::{self, Pool};
use crate::backends::backend::ErrorKind;
use crate::locality::Locality;
use crate::net::{self, ClientOptions};

const AGENT: &str = concat!("wattgate/", env!("CARGO_PKG_VERSION"));

/// The way to one upstream.
#[derive(Debug)]
pub(super) enum Transport {
    Plain(Arc<Pool>),
    Client(Client),
}

/// Where requests of one kind go, ready to be sent.
#[derive(Debug)]
pub(super) struct Target {
    url: Url,
    /// Path and query, and the headers that are the same in every request: for
    /// [`Transport::Plain`].
    uri: Uri,
    host: HeaderValue,
    headers: HeaderMap,
}

/// A response whose body is still to be read.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Bytes of the body that were looked at.
    seen: Option<Bytes>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Plain(Box<plain::Body>),
    Client(Box<reqwest::Response>),
}

impl Transport {
    pub(super) fn new(endpoint: &Url, config: &Config) -> Result<Self, reqwest::Error> {
        let host = endpoint.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let (connect_timeout, idle_max) = (config.connect_timeout(), config.max_in_flight as usize);
        let plain = endpoint.scheme() == "http";
        // A proxy cannot reach this machine's own servers, and might carry a prompt out of the
        // operator's network.
        let stays = net::is_loopback(endpoint) || config.locality != Locality::ThirdParty;
        if plain && (stays || !may_have_proxy()) {
            let port = endpoint.port_or_known_default().unwrap_or(80);
            let pool = Pool::new(host.to_owned(), port, connect_timeout, idle_max);
            return Ok(Self::Plain(Arc::new(pool)));
        }
        let options = ClientOptions {
            connect_timeout: Some(connect_timeout),
            idle_connections_per_host: Some(idle_max),
            bypass_proxy: stays,
            ..ClientOptions::default()
        };
        Ok(Self::Client(net::client(endpoint, options)?))
    }

    /// Sends a JSON body and waits for the head of the response.
    pub(super) async fn post(
        &self,
        target: &Target,
        accept: &'static str,
        body: Bytes,
        connect_timeout: Duration,
    ) -> Result<Response, ErrorKind> {
        let accept = HeaderValue::from_static(accept);
        match self {
            Self::Plain(pool) => {
                let mut request = Request::new(Full::new(body));
                *request.method_mut() = Method::POST;
                *request.uri_mut() = target.uri.clone();
                *request.version_mut() = Version::HTTP_11;
                *request.headers_mut() = target.headers.clone();
                request.headers_mut().insert(HOST, target.host.clone());
                request.headers_mut().insert(ACCEPT, accept);
                let response = pool.send(request).await;
                let response =
                    response.map_err(|error| failure::unsent_plain(&error, connect_timeout))?;
                let (head, body) = response.into_parts();
                let body = Body::Plain(Box::new(body));
                Ok(Response { status: head.status, headers: head.headers, seen: None, body })
            }
            Self::Client(client) => {
                let request = client
                    .post(target.url.clone())
                    .headers(target.headers.clone())
                    .header(ACCEPT, accept)
                    .body(body);
                let again = request.try_clone();
                let mut sent = request.send().await;
                if let (Some(again), Err(error)) = (again, &sent)
                    && was_closed(error)
                {
                    sent = again.send().await;
                }
                let mut response =
                    sent.map_err(|error| failure::unsent(&error, connect_timeout))?;
                let headers = std::mem::take(response.headers_mut());
                let status = response.status();
                let body = Body::Client(Box::new(response));
                Ok(Response { status, headers, seen: None, body })
            }
        }
    }
}

impl Target {
    pub(super) fn new(url: &Url, key: Option<HeaderValue>) -> Result<Self, BaseUrlError> {
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let host = url.host_str().unwrap_or_default();
        let authority = url.port().map(|port| format!("{host}:{port}"));
        let authority = authority.as_deref().unwrap_or(host);
        let host = HeaderValue::from_str(authority).map_err(|_| BaseUrlError::NotHttp)?;
        let uri = Uri::try_from(path).map_err(|_| BaseUrlError::NotHttp)?;
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Nothing here unpacks a body, and without this header a server may pack it.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.extend(key.map(|key| (AUTHORIZATION, key)));
        Ok(Self { url: url.clone(), uri, host, headers })
    }
}

impl Response {
    /// The next bytes of the body: all that has come. `None` after the last.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, ErrorKind> {
        if let Some(seen) = self.seen.take() {
            return Ok(Some(seen));
        }
        match &mut self.body {
            Body::Plain(body) => body.piece().await.map_err(|error| failure::broken_plain(&error)),
            Body::Client(response) => {
                response.chunk().await.map_err(|error| failure::broken(&error))
            }
        }
    }

    /// Gives back what was looked at: it is the next piece again.
    pub(super) fn put_back(&mut self, seen: Bytes) {
        self.seen = (!seen.is_empty()).then_some(seen);
    }

    /// The whole body, or an error if it is longer than `bytes_max`.
    pub(super) async fn whole(mut self, bytes_max: usize) -> Result<Bytes, ErrorKind> {
        self.rest(bytes_max).await
    }

    /// What is left of the body, or an error if that is longer than `bytes_max`.
    pub(super) async fn rest(&mut self, bytes_max: usize) -> Result<Bytes, ErrorKind> {
        let Some(first) = self.piece().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.piece().await? else { return Ok(first) };
        let mut body = BytesMut::from(first);
        let mut next = Some(second);
        while let Some(piece) = next {
            if body.len() + piece.len() > bytes_max {
                return Err(ErrorKind::Protocol(format!("an answer of over {bytes_max} bytes")));
            }
            body.extend_from_slice(&piece);
            next = self.piece().await?;
        }
        Ok(body.freeze())
    }
}

/// Whether the upstream closed the connection, which it may have kept for long, as the request
/// arrived: a fresh one is worth a try.
fn was_closed(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.downcast_ref().is_some_and(hyper::Error::is_incomplete_message) {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// Whether the system may want plain HTTP to go through a proxy: by the variables that `reqwest`
/// reads, or by settings that only it can read.
fn may_have_proxy() -> bool {
    const VARIABLES: [&str; 4] = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(any(target_os = "macos", windows)) || VARIABLES.iter().any(is_set)
}
