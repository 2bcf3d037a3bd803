//! Refuses what pages of foreign origins ask for, and calls by foreign names.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::http::error::ApiError;
use crate::http::state::Edge;

/// Lets a request pass that may do what it asks for.
pub async fn guard(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    let (version, headers) = (request.version(), request.headers());
    if let Err(error) = edge.hosts.check(version, request.uri(), headers) {
        return error.into_response();
    }
    if edge.origins.may_act(request.method(), headers) {
        next.run(request).await
    } else {
        ApiError::ForeignOrigin.into_response()
    }
}
