//! Connections that could not be made or that broke, in the words of `ErrorKind`. Pure.
//!
//! Repeats no URL, which may hold a secret.

use std::error::Error;
use std::time::Duration;

use crate::backends::backend::ErrorKind;
use crate::backends::cloud::plain;

/// No connection, or no response on it.
pub(crate) fn unsent(error: &reqwest::Error, connect_timeout: Duration) -> ErrorKind {
    match (error.is_connect(), error.is_timeout()) {
        (true, true) => ErrorKind::Timeout { after: connect_timeout },
        (true, false) => {
            let cause = root_cause(error).unwrap_or_else(|| "unknown cause".to_owned());
            ErrorKind::Unavailable(format!("cannot connect to the upstream: {cause}"))
        }
        (false, _) => broken(error),
    }
}

/// As [`unsent`], of a connection without TLS.
pub(crate) fn unsent_plain(error: &plain::Error, connect_timeout: Duration) -> ErrorKind {
    match error {
        plain::Error::ConnectTimeout => ErrorKind::Timeout { after: connect_timeout },
        plain::Error::Connect(error) => {
            ErrorKind::Unavailable(format!("cannot connect to the upstream: {error}"))
        }
        plain::Error::Http(_) => broken_plain(error),
    }
}

/// A connection that broke while an answer was awaited or read.
pub(crate) fn broken(error: &reqwest::Error) -> ErrorKind {
    let cause = root_cause(error).unwrap_or_else(|| "unknown cause".to_owned());
    ErrorKind::Unavailable(format!("the connection to the upstream broke: {cause}"))
}

/// As [`broken`], of a connection without TLS.
pub(crate) fn broken_plain(error: &plain::Error) -> ErrorKind {
    let cause = root_cause(error).unwrap_or_else(|| error.to_string());
    ErrorKind::Unavailable(format!("the connection to the upstream broke: {cause}"))
}

/// The innermost cause: the operating system's or the TLS library's words, which hold no URL.
fn root_cause(error: &dyn Error) -> Option<String> {
    let mut cause = error.source();
    while let Some(inner) = cause.and_then(Error::source) {
        cause = Some(inner);
    }
    cause.map(ToString::to_string)
}
