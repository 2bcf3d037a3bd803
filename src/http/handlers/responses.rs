//! `/v1/responses`: new answers, and those that are kept.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::value::RawValue;

use super::generate::{Around, Call, Understood};
use crate::http::error::ApiError;
use crate::http::extract::fields::wrong;
use crate::http::extract::path::PathText;
use crate::http::responses::chat::{Earlier, read_request};
use crate::http::responses::items::id_of;
use crate::http::responses::store::{Keep, Kept, Owner};
use crate::http::state::Edge;
use crate::http::surface::{Dialect, Surface};
use crate::openai::Request;
use crate::routing::Features;
use crate::shares::Client;
use crate::units::MonotonicNs;

/// `POST /v1/responses`
pub async fn respond(call: Call) -> Response {
    call.answer(Dialect::Responses, understand).await
}

fn understand(body: &[u8], around: Around<'_>) -> Result<Understood, ApiError> {
    let store = &around.edge.responses;
    let owner = Owner::from(around.client);
    let earlier = Earlier { store, owner, now: MonotonicNs::now() };
    let read = read_request(body, &around.id.0, earlier)?;
    let conversation = read.conversation;
    let keep = conversation.store.then(|| Keep {
        store: Arc::clone(store),
        owner,
        input: conversation.items,
        local_only: conversation.local_only,
        session: None,
    });
    Ok(Understood {
        request: Request::Chat(read.request),
        translated: Some(read.body),
        surface: Surface::Responses { asked: Box::new(read.asked), keep },
        stays_local: conversation.local_only,
        session: conversation.session,
    })
}

/// `POST /v1/responses/input_tokens`: the gateway's estimate, before any engine has counted.
pub async fn input_tokens(call: Call) -> Response {
    #[derive(Serialize)]
    struct Count {
        object: &'static str,
        input_tokens: u32,
    }
    let id = call.request_id();
    match call.understand(understand).await {
        Ok(understood) => {
            let input_tokens = Features::of(&understood.request).prompt_tokens;
            Json(Count { object: "response.input_tokens", input_tokens }).into_response()
        }
        Err(error) => Dialect::Responses.refusal(&error, None, &id.0),
    }
}

/// `GET /v1/responses` is where clients ask for a WebSocket; they go on over HTTP.
pub async fn upgrade(headers: HeaderMap, method: Method) -> Response {
    if !headers.contains_key(header::UPGRADE) {
        return ApiError::MethodNotAllowed { method }.into_response();
    }
    let protocol = (header::UPGRADE, HeaderValue::from_static("HTTP/1.1"));
    ([protocol], ApiError::NoWebSockets).into_response()
}

/// `GET /v1/responses/{id}`
pub async fn response(
    State(edge): State<Edge>,
    Extension(client): Extension<Client>,
    PathText(id): PathText,
) -> Result<Response, ApiError> {
    let object = kept(&edge, client, &id)?.object.clone();
    let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(([json], Body::from(object)).into_response())
}

/// `DELETE /v1/responses/{id}`
pub async fn forget(
    State(edge): State<Edge>,
    Extension(client): Extension<Client>,
    PathText(id): PathText,
) -> Result<Json<Forgotten>, ApiError> {
    if !edge.responses.remove(&id, client.into()) {
        return Err(ApiError::UnknownResponse(id));
    }
    Ok(Json(Forgotten { id, object: "response", deleted: true }))
}

#[derive(Debug, Serialize)]
pub struct Forgotten {
    id: String,
    object: &'static str,
    deleted: bool,
}

/// `POST /v1/responses/{id}/cancel`: only answers in the background can be, and there are none.
pub async fn cancel(
    State(edge): State<Edge>,
    Extension(client): Extension<Client>,
    PathText(id): PathText,
) -> Result<(), ApiError> {
    kept(&edge, client, &id)?;
    let message = "Only responses created with `background` can be cancelled.".to_owned();
    Err(ApiError::InvalidField { param: "id".to_owned(), message })
}

/// Part of a list.
#[derive(Debug)]
struct Page<'q> {
    limit: usize,
    oldest_first: bool,
    /// The id of the item before the first.
    after: Option<&'q str>,
}

const PAGE_ITEMS: usize = 20;
const PAGE_ITEMS_MAX: usize = 100;

impl<'q> Page<'q> {
    /// The part that a query asks for. Ids need no escaping.
    fn of(query: &'q str) -> Result<Self, ApiError> {
        let mut page = Self { limit: PAGE_ITEMS, oldest_first: false, after: None };
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "limit" => {
                    let limit = value.parse().ok();
                    let limit = limit.filter(|limit| (1..=PAGE_ITEMS_MAX).contains(limit));
                    page.limit = limit.ok_or_else(|| wrong("limit", "must be from 1 to 100"))?;
                }
                "order" => {
                    page.oldest_first = match value {
                        "asc" => true,
                        "desc" => false,
                        _ => return Err(wrong("order", "must be asc or desc")),
                    }
                }
                "after" => page.after = Some(value),
                _ => {}
            }
        }
        Ok(page)
    }
}

#[derive(Debug, Serialize)]
pub struct ItemList {
    object: &'static str,
    data: Vec<Box<RawValue>>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

/// `GET /v1/responses/{id}/input_items`: the conversation before the answer.
pub async fn input_items(
    State(edge): State<Edge>,
    Extension(client): Extension<Client>,
    PathText(id): PathText,
    RawQuery(query): RawQuery,
) -> Result<Json<ItemList>, ApiError> {
    let page = Page::of(query.as_deref().unwrap_or_default())?;
    let kept = kept(&edge, client, &id)?;
    let mut items: Vec<&Box<RawValue>> = kept.input.iter().collect();
    if !page.oldest_first {
        items.reverse();
    }
    if let Some(after) = page.after {
        let place = items.iter().position(|item| id_of(item).as_deref() == Some(after));
        let place = place.ok_or_else(|| wrong("after", "is no item of this response"))?;
        items.drain(..=place);
    }
    let has_more = items.len() > page.limit;
    items.truncate(page.limit);
    Ok(Json(ItemList {
        object: "list",
        first_id: items.first().and_then(|item| id_of(item)),
        last_id: items.last().and_then(|item| id_of(item)),
        data: items.into_iter().cloned().collect(),
        has_more,
    }))
}

fn kept(edge: &Edge, client: Client, id: &str) -> Result<Arc<Kept>, ApiError> {
    let kept = edge.responses.get(id, client.into(), MonotonicNs::now());
    kept.ok_or_else(|| ApiError::UnknownResponse(id.to_owned()))
}
