//! `GET /metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::http::error::ApiError;
use crate::serving::Gateway;

/// All metrics, gauges refreshed.
pub async fn metrics(State(gateway): State<Arc<Gateway>>) -> Result<Response, ApiError> {
    gateway.refresh_gauges();
    let text = gateway.metrics.encode().map_err(|_| ApiError::INTERNAL)?;
    let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, open_metrics)], text).into_response())
}
