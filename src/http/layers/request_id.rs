//! The id of a request: made before anything else happens, in the log, in the receipts and in every
//! reply.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use uuid::{NoContext, Timestamp, Uuid};

/// Header of every reply.
const HEADER: HeaderName = HeaderName::from_static("x-wattgate-request-id");
/// The header that OpenAI's clients read and that proxies hand on: the client's own id if it sent
/// one, which is never the id of a receipt.
const COMMON_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id of a client that is given back, bytes.
const CLIENT_ID_BYTES_MAX: usize = 128;

/// An extension of each request.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

impl RequestId {
    /// Ids sort by time, as the clock shows it: once it is set back, so are they, since the log
    /// keeps a record by the day in its id.
    pub fn generate() -> Self {
        let mut text = Uuid::encode_buffer();
        let id = Uuid::new_v7(Timestamp::now(NoContext));
        Self(Arc::from(&*id.hyphenated().encode_lower(&mut text)))
    }

    /// Names the request in its reply; `client` is the id that it came with.
    pub fn write(&self, client: Option<HeaderValue>, response: &mut Response) {
        if let Ok(value) = HeaderValue::from_str(&self.0) {
            let headers = response.headers_mut();
            headers.insert(COMMON_HEADER, client.unwrap_or_else(|| value.clone()));
            headers.entry(HEADER).or_insert(value);
        }
    }
}

/// The id that a client or a proxy gave the request, if it looks like one.
pub fn client_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:-".contains(byte);
    let is_id = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        (1..=CLIENT_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(plain)
    };
    headers.get(COMMON_HEADER).filter(is_id).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_id_comes_back_if_it_looks_like_one() {
        let reply_to = |id: Option<&str>| {
            let pairs = id.map(|id| (COMMON_HEADER, id.parse().unwrap()));
            let (own, mut response) = (RequestId::generate(), Response::default());
            own.write(client_id(&pairs.into_iter().collect()), &mut response);
            let header = |name| response.headers().get(name).unwrap().to_str().unwrap().to_owned();
            assert_eq!(header(HEADER), *own.0);
            (header(COMMON_HEADER), own.0)
        };
        assert_eq!(reply_to(Some("req-1.a:b_C")).0, "req-1.a:b_C");
        for wrong in [None, Some(""), Some("a b"), Some("<script>"), Some(&*"x".repeat(129))] {
            let (common, own) = reply_to(wrong);
            assert_eq!(common, *own, "{wrong:?}");
        }
    }
}
