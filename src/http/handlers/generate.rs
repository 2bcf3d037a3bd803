//! `POST /v1/chat/completions`, `/v1/completions` and `/v1/embeddings`.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::time::timeout;

use crate::http::error::ApiError;
use crate::http::explained::explained;
use crate::http::extract::body::{
    Parse, parse as parse_body, parse_chat, parse_completion, parse_embedding, read_body,
};
use crate::http::extract::content_type;
use crate::http::extract::options::{Asking, options};
use crate::http::layers::request_id::RequestId;
use crate::http::reply::{explain, name_model, whole};
use crate::http::state::Edge;
use crate::http::stream::{Answer, open, streamed};
use crate::serving::execution::Execution;
use crate::shares::Client;
use crate::units::MonotonicNs;

/// Answers a conversation.
pub async fn complete(
    State(edge): State<Edge>,
    Extension(id): Extension<RequestId>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    answer(edge, &id, client, &headers, body, parse_chat).await
}

/// Continues raw prompts.
pub async fn complete_prompt(
    State(edge): State<Edge>,
    Extension(id): Extension<RequestId>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    answer(edge, &id, client, &headers, body, parse_completion).await
}

/// Turns texts into vectors.
pub async fn embed(
    State(edge): State<Edge>,
    Extension(id): Extension<RequestId>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    answer(edge, &id, client, &headers, body, parse_embedding).await
}

/// Bodies that are parsed and planned within a few milliseconds.
const SMALL_BYTES: usize = 256 << 10;

/// Parses a request and decides who answers it.
fn begin(
    edge: Edge,
    id: &RequestId,
    headers: &HeaderMap,
    body: Bytes,
    parse: Parse,
    asking: Asking,
) -> Result<Execution, ApiError> {
    let (request, body) = parse_body(body, parse)?;
    edge.limits.check(&request)?;
    let options = options(headers, request.fields(), id, asking)?;
    let plan = edge.gateway.router.plan(&request, &options)?;
    Ok(Execution::new(edge.gateway, request, body, &options, plan))
}

async fn answer(
    edge: Edge,
    id: &RequestId,
    client: Client,
    headers: &HeaderMap,
    body: Body,
    parse: Parse,
) -> Result<Response, ApiError> {
    let arrived = MonotonicNs::now();
    content_type::check(headers)?;
    let received = read_body(headers, body, &edge.body, client).await?;
    let asking = Asking { client, says_local: received.says_local, arrived };
    let large = received.bytes.len() > SMALL_BYTES;
    let stream_head_after = edge.stream_head_after;
    let (id, headers) = (id.clone(), headers.clone());
    let begin = move || begin(edge, &id, &headers, received.bytes, parse, asking);
    let mut execution = if large {
        // It would hold up the other requests of this thread.
        tokio::task::spawn_blocking(begin).await.unwrap_or(Err(ApiError::INTERNAL))?
    } else {
        begin()?
    };
    let mut headers = explain(execution.id(), &execution.plan);
    let (execution, opened) = if execution.request().streams() {
        let mut opening = open(execution);
        match timeout(stream_head_after, &mut opening).await {
            Ok(opened) => opened,
            // Proxies and clients give up on a reply without a head.
            Err(_) => return Ok(streamed(Answer::Opening(opening), headers)),
        }
    } else {
        let opened = execution.open().await;
        (execution, opened)
    };
    if let Err(error) = opened {
        let error = explained(error.into(), execution.request(), &execution.plan);
        let receipt = execution.failed(error.status().as_u16());
        return Ok((headers, error.reply(Some(&receipt))).into_response());
    }
    if execution.request().streams() {
        name_model(&mut headers, execution.model());
        Ok(streamed(Answer::Open(Box::new(execution)), headers))
    } else {
        Ok(whole(execution, headers).await)
    }
}
