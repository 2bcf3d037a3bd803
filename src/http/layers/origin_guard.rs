//! Refuses what pages of foreign origins ask for.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::http::error::ApiError;
use crate::http::state::Edge;

/// Lets a request pass that may do what it asks for.
pub async fn guard(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    if edge.origins.may_act(request.method(), request.headers()) {
        next.run(request).await
    } else {
        ApiError::ForeignOrigin.into_response()
    }
}
