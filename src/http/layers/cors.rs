//! The headers by which browsers let pages of listed origins call the gateway and read its answers.

use std::time::Duration;

use axum::http::{HeaderName, Method};
use tower_http::cors::{Any, CorsLayer};

use crate::http::origin::Origins;

/// How long a browser may remember the permission.
const MAX_AGE: Duration = Duration::from_hours(1);

/// Headers of a reply that a page may read beside the few that it always may.
const EXPOSED: [&str; 8] = [
    "x-request-id",
    "x-wattgate-request-id",
    "x-wattgate-model",
    "x-wattgate-route",
    "x-wattgate-policy",
    "x-wattgate-reason",
    "x-wattgate-session",
    "retry-after",
];

/// The layer for these origins; `None` if there are none.
pub fn layer(origins: &Origins) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::DELETE])
        // Clients differ in the headers they add; none of them is a secret of the gateway.
        .allow_headers(tower_http::cors::AllowHeaders::mirror_request())
        .expose_headers(EXPOSED.map(HeaderName::from_static))
        // The gateway is in a private network, and many pages are not.
        .allow_private_network(true)
        .max_age(MAX_AGE);
    Some(if origins.are_any() {
        layer.allow_origin(Any)
    } else {
        layer.allow_origin(origins.listed().to_vec())
    })
}
