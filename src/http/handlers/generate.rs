//! From a request on any surface to its answer: body, plan, execution, reply.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request as HttpRequest};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::time::timeout;

use crate::http::error::ApiError;
use crate::http::explained::explained;
use crate::http::extract::body::{parse, read_body};
use crate::http::extract::content_type;
use crate::http::extract::options::{Asking, options};
use crate::http::layers::request_id::RequestId;
use crate::http::reply::{explain, name_model, whole};
use crate::http::state::Edge;
use crate::http::stream::{Answer, open, streamed};
use crate::http::surface::{Dialect, Surface};
use crate::offload;
use crate::openai::Request;
use crate::serving::execution::Execution;
use crate::shares::{Client, Taken};
use crate::units::MonotonicNs;

/// A request whose body has not been read.
pub struct Call {
    edge: Edge,
    id: RequestId,
    client: Client,
    headers: HeaderMap,
    body: Body,
}

/// What a reader of bodies may look at beside the body.
#[derive(Clone, Copy)]
pub struct Around<'c> {
    pub edge: &'c Edge,
    pub id: &'c RequestId,
    pub client: Client,
    pub headers: &'c HeaderMap,
}

/// A body that was understood.
pub struct Understood {
    pub request: Request,
    /// What upstreams get instead of the client's own body.
    pub translated: Option<Vec<u8>>,
    pub surface: Surface,
    /// An earlier answer of the conversation had to stay on this machine.
    pub stays_local: bool,
    /// A name of the conversation, for requests that give none of their own.
    pub session: Option<String>,
}

/// Reads the bodies of one kind of request.
pub type Read = fn(&[u8], Around<'_>) -> Result<Understood, ApiError>;

impl Understood {
    /// A request in the words that upstreams know.
    pub fn plain(request: Request) -> Self {
        Self {
            request,
            translated: None,
            surface: Surface::Openai,
            stays_local: false,
            session: None,
        }
    }
}

impl FromRequest<Edge> for Call {
    type Rejection = ApiError;

    async fn from_request(request: HttpRequest, edge: &Edge) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        // Layers put them into every request.
        let id = parts.extensions.get::<RequestId>().cloned().ok_or(ApiError::INTERNAL)?;
        let client = parts.extensions.get::<Client>().copied().ok_or(ApiError::INTERNAL)?;
        Ok(Self { edge: edge.clone(), id, client, headers: parts.headers, body })
    }
}

/// A body as upstreams get it, with its place in memory: it may hold a whole earlier conversation.
struct Translated {
    body: Vec<u8>,
    _taken: Taken,
}

impl AsRef<[u8]> for Translated {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Call {
    pub fn request_id(&self) -> RequestId {
        self.id.clone()
    }

    /// Answers the request.
    pub async fn answer(self, dialect: Dialect, read: Read) -> Response {
        let id = self.id.clone();
        let answered = self.try_answer(dialect, read).await;
        answered.unwrap_or_else(|error| dialect.refusal(&error, None, &id.0))
    }

    /// What `read` makes of the body; nothing runs.
    pub async fn understand(self, read: Read) -> Result<Understood, ApiError> {
        content_type::check(&self.headers)?;
        let Self { edge, id, client, headers, body } = self;
        let bytes = read_body(&headers, body, &edge.body, client).await?.bytes;
        let understand = move || {
            let around = Around { edge: &edge, id: &id, client, headers: &headers };
            let (understood, _) = parse(bytes, |body| read(body, around))?;
            edge.limits.check(&understood.request)?;
            Ok(understood)
        };
        tokio::task::spawn_blocking(understand).await.unwrap_or(Err(ApiError::INTERNAL))
    }

    async fn try_answer(self, dialect: Dialect, read: Read) -> Result<Response, ApiError> {
        let arrived = MonotonicNs::now();
        content_type::check(&self.headers)?;
        let Self { edge, id, client, headers, body } = self;
        let received = read_body(&headers, body, &edge.body, client).await?;
        let asking = Asking { client, says_local: received.says_local, arrived };
        // An answer that is continued may hold far more than the body.
        let continued = dialect == Dialect::Responses;
        let bytes = if continued { usize::MAX } else { received.bytes.len() };
        let stream_head_after = edge.stream_head_after;
        let begin = {
            let id = id.clone();
            move || begin(&edge, &id, &headers, received.bytes, read, asking)
        };
        let planned = offload::run(bytes, begin).await;
        let (mut execution, surface) = planned.unwrap_or(Err(ApiError::INTERNAL))?;
        let mut headers = explain(execution.id(), &execution.plan);
        let (execution, opened) = if execution.request().streams() {
            let mut opening = open(execution);
            match timeout(stream_head_after, &mut opening).await {
                Ok(opened) => opened,
                // Proxies and clients give up on a reply without a head.
                Err(_) => return Ok(streamed(Answer::Opening(opening), surface, headers)),
            }
        } else {
            let opened = execution.open().await;
            (execution, opened)
        };
        if let Err(error) = opened {
            let error = explained(error.into(), execution.request(), &execution.plan);
            let receipt = execution.failed(error.status().as_u16());
            return Ok((headers, dialect.refusal(&error, Some(&receipt), &id.0)).into_response());
        }
        if execution.request().streams() {
            name_model(&mut headers, execution.model());
            Ok(streamed(Answer::Open(execution), surface, headers))
        } else {
            Ok(whole(execution, surface, dialect, headers).await)
        }
    }
}

/// Parses a request and decides who answers it.
fn begin(
    edge: &Edge,
    id: &RequestId,
    headers: &HeaderMap,
    body: Bytes,
    read: Read,
    asking: Asking,
) -> Result<(Box<Execution>, Surface), ApiError> {
    let around = Around { edge, id, client: asking.client, headers };
    let (understood, body) = parse(body, |body| read(body, around))?;
    let Understood { request, translated, mut surface, stays_local, session } = understood;
    edge.limits.check(&request)?;
    let body = match translated {
        Some(body) => {
            let taken = edge.body.in_memory.take(asking.client, body.len() as u64);
            Bytes::from_owner(Translated { body, _taken: taken.map_err(ApiError::bodies)? })
        }
        None => body,
    };
    let asking = Asking { says_local: asking.says_local || stays_local, ..asking };
    let mut options = options(headers, request.fields(), id, asking)?;
    options.session = options.session.or(session);
    let plan = edge.gateway.router.plan(&request, &options)?;
    surface.enter(&options, &plan);
    Ok((Execution::new(Arc::clone(&edge.gateway), request, body, &options, plan), surface))
}
