//! Observation of every request, answered or refused: its id, a count, and a line of the access
//! log.
//!
//! Neither prompts nor keys: the path is that of the route table, and no header is looked at.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::request_id::{RequestId, client_id};
use crate::serving::Gateway;
use crate::telemetry::ACCESS_LOG;
use crate::telemetry::metrics::HttpLabels;

/// The path of a request that no route takes.
const UNKNOWN: &str = "unknown";

/// Counts and logs a request when its reply begins.
pub async fn observe(
    State(gateway): State<Arc<Gateway>>,
    mut request: Request,
    next: Next,
) -> Response {
    let (id, began) = (RequestId::generate(), Instant::now());
    let client = client_id(request.headers());
    request.extensions_mut().insert(id.clone());
    let path = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let mut response = next.run(request).await;
    id.write(client, &mut response);
    let path = path.as_ref().map_or(UNKNOWN, MatchedPath::as_str);
    let status = response.status().as_u16();
    let labels = HttpLabels { path: path.to_owned(), status };
    gateway.metrics.http_requests_total.get_or_create(&labels).inc();
    tracing::info!(
        target: ACCESS_LOG,
        {
            request.id = %id.0,
            http.method = %method,
            http.path = path,
            http.status = status,
            elapsed_ms = began.elapsed().as_secs_f64() * 1e3,
        },
        "request"
    );
    response
}
