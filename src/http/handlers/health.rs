//! `GET /healthz` and `GET /readyz`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::serving::Gateway;

/// `GET /healthz`: the process serves.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: at least one model can answer, if need be after loading.
pub async fn readyz(State(gateway): State<Arc<Gateway>>) -> Response {
    if gateway.router.snapshot().models.values().any(|model| model.is_ready()) {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no model can answer yet\n").into_response()
    }
}
