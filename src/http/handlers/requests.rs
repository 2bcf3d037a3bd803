//! `GET /v1/requests/{id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use crate::http::error::ApiError;
use crate::http::extract::path::PathText;
use crate::serving::Gateway;
use crate::serving::error::ServeErrorKind;
use crate::traffic::Record;

/// The record of a request that has ended, its energy final once settled.
pub async fn request(
    State(gateway): State<Arc<Gateway>>,
    PathText(id): PathText,
) -> Result<Json<Arc<Record>>, ApiError> {
    let record = gateway.receipts.get(bare_id(&id));
    record.map(Json).ok_or_else(|| ServeErrorKind::UnknownRequest(id).into())
}

/// The request's id from what a client calls it: SDKs show the answer's id, which names the
/// request.
pub fn bare_id(id: &str) -> &str {
    let prefixes = ["chatcmpl-", "cmpl-", "resp_", "msg_"];
    prefixes.iter().find_map(|prefix| id.strip_prefix(prefix)).unwrap_or(id)
}
