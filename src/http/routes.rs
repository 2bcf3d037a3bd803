//! The route table and the layers around it, in order, each with its reason.

use std::any::Any;

use axum::Router;
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;

use super::error::ApiError;
use super::handlers::{admin, feedback, generate, health, metrics, models, requests, route};
use super::state::Edge;

pub fn routes(edge: Edge) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(generate::complete))
        .route("/v1/completions", post(generate::complete_prompt))
        .route("/v1/embeddings", post(generate::embed))
        .route("/v1/route", post(route::route))
        .route("/v1/feedback", post(feedback::feedback))
        .route("/v1/models", get(models::models))
        .route("/v1/models/{*id}", get(models::model))
        .route("/v1/requests/{id}", get(requests::request))
        .route("/admin/models/{*order}", post(admin::order))
        .route("/admin/router/reload", post(admin::reload))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(edge)
        // Outermost: a fault of ours is one client's 500, never a dropped connection.
        .layer(CatchPanicLayer::custom(panicked))
}

async fn unknown_path(uri: Uri) -> ApiError {
    ApiError::UnknownPath(uri.path().to_owned())
}

async fn wrong_method(method: Method) -> ApiError {
    ApiError::MethodNotAllowed { method }
}

fn panicked(_payload: Box<dyn Any + Send>) -> Response {
    // The payload may quote a prompt, so it stays out of the log; the panic hook has printed the place.
    tracing::error!("a request handler panicked");
    ApiError::INTERNAL.into_response()
}
