//! Requests to the hub: redirects, credentials and status codes. Knows nothing of files on disk.
//!
//! The token is sent to the endpoint's own origin only. The hub redirects large files to a content
//! network whose URLs carry their own signature.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Client, Response, StatusCode, Url};

use crate::net::{self, ClientOptions};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest silence of a server in the middle of a file.
const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// Longer chains of redirects are taken for a loop.
const REDIRECTS_MAX: usize = 10;

/// Failure of one request.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("HTTP status {0}")]
    Status(StatusCode),
    #[error("{}", chain(.0))]
    Transport(#[from] reqwest::Error),
    #[error("more than {REDIRECTS_MAX} redirects")]
    Redirects,
    #[error("a redirect to no valid address")]
    Location,
}

/// A successful response, and the headers of the redirects that led to it.
pub(super) struct Reply {
    pub(super) response: Response,
    /// In the order in which they came.
    pub(super) redirects: Vec<HeaderMap>,
}

/// The endpoint, and the token for it.
pub(super) struct Transport {
    endpoint: Url,
    token: Option<HeaderValue>,
    client: Client,
}

impl Transport {
    pub(super) fn new(endpoint: Url, token: Option<HeaderValue>) -> Result<Self, RequestError> {
        let client = client(&endpoint)?;
        Ok(Self { endpoint, token, client })
    }

    pub(super) fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// Requests the bytes of `url` that `range` names (`bytes=…`) and follows redirects.
    pub(super) async fn get(&self, url: &Url, range: &str) -> Result<Reply, RequestError> {
        let mut url = url.clone();
        let mut redirects = Vec::new();
        while redirects.len() <= REDIRECTS_MAX {
            let response = self.send(&url, range).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(Reply { response, redirects });
            }
            if !status.is_redirection() {
                return Err(RequestError::Status(status));
            }
            url = target(&url, response.headers()).ok_or(RequestError::Location)?;
            redirects.push(response.headers().clone());
        }
        Err(RequestError::Redirects)
    }

    async fn send(&self, url: &Url, range: &str) -> Result<Response, RequestError> {
        let is_endpoint = url.origin() == self.endpoint.origin();
        // Trust roots and proxy depend on the server, so another origin gets a client of its own.
        let client = if is_endpoint { self.client.clone() } else { client(url)? };
        let mut request = client.get(url.clone()).header(RANGE, range);
        if let Some(token) = self.token.as_ref().filter(|_| is_endpoint) {
            request = request.header(AUTHORIZATION, token);
        }
        Ok(request.send().await?)
    }
}

fn client(url: &Url) -> reqwest::Result<Client> {
    let options = ClientOptions {
        connect_timeout: Some(CONNECT_TIMEOUT),
        read_timeout: Some(READ_TIMEOUT),
        ..ClientOptions::default()
    };
    net::client(url, options)
}

/// `None` if there is no `Location`, or one that HTTP cannot reach.
fn target(url: &Url, headers: &HeaderMap) -> Option<Url> {
    let location = headers.get(LOCATION)?.to_str().ok()?;
    url.join(location).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
}

/// The error with its causes, without the URL: a signed one holds a credential.
fn chain(error: &reqwest::Error) -> String {
    let mut text = if error.is_connect() {
        "cannot connect".to_owned()
    } else if error.is_timeout() {
        format!("no data for {} s", READ_TIMEOUT.as_secs())
    } else {
        "the connection failed".to_owned()
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
