//! Route tables of both listeners, and the layers around them.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use super::error::ApiError;
use super::handlers::{
    admin, feedback, health, messages, metrics, models, openai, requests, responses, route,
};
use super::layers::cors;
use super::layers::observe::observe;
use super::layers::origin_guard::guard;
use super::paths::normal;
use super::state::Edge;
use crate::serving::Gateway;

/// How much of a refused request's body is read, and for how long.
const REFUSED_BODY_BYTES: usize = 1 << 20;
const REFUSED_BODY_WAIT: Duration = Duration::from_millis(300);

/// The operator's routes that a listener has.
#[derive(Clone, Copy, Debug, Default)]
pub struct OperatorRoutes {
    pub metrics: bool,
    pub admin: bool,
}

/// What clients use, with the operator's routes that have no listener of their own.
pub fn public(edge: Edge, with: OperatorRoutes) -> Router {
    let routes = Router::new()
        .route("/v1/chat/completions", post(openai::complete))
        .route("/v1/completions", post(openai::complete_prompt))
        .route("/v1/embeddings", post(openai::embed))
        .route("/v1/messages", post(messages::create))
        .route("/v1/messages/count_tokens", post(messages::count_tokens))
        .route("/", get(messages::root))
        .route("/v1/route", post(route::route))
        .route("/v1/feedback", post(feedback::feedback))
        .route("/v1/models", get(models::models))
        .route("/v1/models/{*id}", get(models::model))
        .route("/v1/requests/{id}", get(requests::request))
        .merge(responses_routes())
        .merge(health_routes())
        .merge(with.routes());
    finish(routes, edge)
}

fn responses_routes() -> Router<Edge> {
    Router::new()
        .route("/v1/responses", post(responses::respond).get(responses::upgrade))
        .route("/v1/responses/input_tokens", post(responses::input_tokens))
        .route("/v1/responses/{id}", get(responses::response).delete(responses::forget))
        .route("/v1/responses/{id}/cancel", post(responses::cancel))
        .route("/v1/responses/{id}/input_items", get(responses::input_items))
}

/// Replies to requests that no route gets to see, counted and logged like any other. The failure is
/// an extension of the request.
pub fn refusal(gateway: Arc<Gateway>) -> Router {
    let refuse = async |Extension(failure): Extension<ApiError>, body: Body| {
        // A reply to a client that is still sending could be lost.
        let _ = timeout(REFUSED_BODY_WAIT, Limited::new(body, REFUSED_BODY_BYTES).collect()).await;
        ([(header::CONNECTION, "close")], failure)
    };
    Router::new().fallback(refuse).layer(from_fn_with_state(gateway, observe))
}

/// What the operator uses.
pub fn operator(edge: Edge, what: OperatorRoutes) -> Router {
    finish(what.routes().merge(health_routes()), edge)
}

impl OperatorRoutes {
    fn routes(self) -> Router<Edge> {
        let mut routes = Router::new();
        if self.metrics {
            routes = routes.route("/metrics", get(metrics::metrics));
        }
        if self.admin {
            routes = routes
                .route("/admin/models/{*order}", post(admin::order))
                .route("/admin/router/reload", post(admin::reload));
        }
        routes
    }
}

fn health_routes() -> Router<Edge> {
    Router::new().route("/healthz", get(health::healthz)).route("/readyz", get(health::readyz))
}

fn finish(routes: Router<Edge>, edge: Edge) -> Router {
    let gateway = Arc::clone(&edge.gateway);
    let layers = ServiceBuilder::new()
        // Outermost, so that a panic is counted like any other reply.
        .layer(from_fn_with_state(gateway, observe))
        .option_layer(cors::layer(&edge.origins))
        .layer(from_fn_with_state(edge.clone(), guard))
        // A panic is one client's 500, never a dropped connection.
        .layer(CatchPanicLayer::custom(panicked));
    let routes = routes
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(edge)
        .layer(layers);
    // Around the table, which looks at the path before its layers do.
    let spelled = ServiceBuilder::new().map_request(|mut request: Request| {
        *request.uri_mut() = normal(std::mem::take(request.uri_mut()));
        request
    });
    Router::new().fallback_service(spelled.service(routes))
}

async fn unknown_path(method: Method, uri: Uri) -> ApiError {
    // A tunnel has no path.
    if method == Method::CONNECT {
        return ApiError::MethodNotAllowed { method };
    }
    ApiError::UnknownPath(uri.path().to_owned())
}

async fn wrong_method(method: Method) -> ApiError {
    ApiError::MethodNotAllowed { method }
}

fn panicked(_payload: Box<dyn Any + Send>) -> Response {
    // The payload may quote a prompt, so it stays out of the log; the panic hook has printed the
    // place.
    tracing::error!("a request handler panicked");
    ApiError::INTERNAL.into_response()
}
