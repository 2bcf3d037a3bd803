//! What can be asked about the gateway itself: models, health, metrics, receipts.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::ApiError;
use super::model::Model;
use super::plan::AUTO;
use super::state::{Gateway, Router};
use crate::traffic::Record;

#[derive(Debug, Serialize)]
pub struct ModelList {
    object: &'static str,
    data: Vec<ModelCard>,
}

#[derive(Debug, Serialize)]
pub struct ModelCard {
    id: String,
    object: &'static str,
    /// Seconds since the Unix epoch; OpenAI's field, unknown here.
    created: u64,
    /// `wattgate` for the names that route, else where the model runs.
    owned_by: &'static str,
    /// Whether it could answer just now.
    ready: bool,
    /// Requests it works on or that wait for it; absent for the names that route.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight: Option<u32>,
    /// Those of them that wait: a new request is behind so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<u32>,
}

/// `GET /v1/models`: the names that route first, then every model.
pub async fn models(State(gateway): State<Arc<Gateway>>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: cards(&gateway) })
}

/// `GET /v1/models/{id}`; ids may hold slashes.
pub async fn model(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
) -> Result<Json<ModelCard>, ApiError> {
    let found = cards(&gateway).into_iter().find(|card| card.id == id);
    found.map(Json).ok_or(ApiError::UnknownModel(id))
}

fn cards(gateway: &Gateway) -> Vec<ModelCard> {
    let Router { models, policies, .. } = &gateway.router;
    let any_ready = models.iter().any(is_ready);
    let policies = policies.keys().map(|policy| format!("{AUTO}/{policy}"));
    let routed = std::iter::once(AUTO.to_owned()).chain(policies);
    let card = |id, owned_by, ready| ModelCard {
        id,
        object: "model",
        created: 0,
        owned_by,
        ready,
        in_flight: None,
        waiting: None,
    };
    let routed = routed.map(|id| card(id, "wattgate", any_ready));
    let models = models.iter().map(|model| {
        let health = model.backend.health();
        ModelCard {
            in_flight: Some(health.in_flight),
            waiting: Some(health.waiting()),
            ..card(model.name.to_string(), model.route().label(), is_ready(model))
        }
    });
    routed.chain(models).collect()
}

fn is_ready(model: &Model) -> bool {
    model.unavailable().is_none()
}

/// `GET /healthz`: the process serves.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: at least one model can answer.
pub async fn readyz(State(gateway): State<Arc<Gateway>>) -> Response {
    if gateway.router.models.iter().any(is_ready) {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no model can answer yet\n").into_response()
    }
}

/// `GET /metrics`.
pub async fn metrics(State(gateway): State<Arc<Gateway>>) -> Result<Response, ApiError> {
    gateway.refresh_gauges();
    let text = gateway.metrics.encode().map_err(|_| ApiError::Internal)?;
    let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, open_metrics)], text).into_response())
}

/// `GET /v1/requests/{id}`: the record of a request that has ended, its energy final once settled.
pub async fn request(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
) -> Result<Json<Record>, ApiError> {
    // OpenAI's SDKs show the completion id; both name the request.
    let bare = id.strip_prefix("chatcmpl-").unwrap_or(&id);
    gateway.books.get(bare).map(Json).ok_or(ApiError::UnknownRequest(id))
}
