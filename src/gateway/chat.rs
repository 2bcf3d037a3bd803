//! `POST /v1/chat/completions`, `/v1/completions`, `/v1/embeddings` and `/v1/route`.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::asked::{Asked, SESSION};
use super::error::ApiError;
use super::exchange::Exchange;
use super::plan::Plan;
use super::recents::Fingerprint;
use super::reply::{explain, whole};
use super::request::{Parse, parse_chat, parse_completion, parse_embedding, read_body};
use super::state::Gateway;
use super::stream::streamed;
use super::terms::terms;
use crate::openai::Request;
use crate::routing::{Features, Judged, Route, Rule, SessionId, TaskClass};
use crate::traffic::Sign;
use crate::units::MonotonicNs;

/// Answers a conversation.
pub async fn complete(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    answer(gateway, &headers, body, parse_chat).await
}

/// Continues raw prompts.
pub async fn complete_prompt(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    answer(gateway, &headers, body, parse_completion).await
}

/// Turns texts into vectors.
pub async fn embed(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    answer(gateway, &headers, body, parse_embedding).await
}

async fn answer(
    gateway: Arc<Gateway>,
    headers: &HeaderMap,
    body: Body,
    parse: Parse,
) -> Result<Response, ApiError> {
    let terms = terms(headers, MonotonicNs::now())?;
    let body = read_body(body, gateway.max_body_bytes).await?;
    let request = parse(&body)?;
    let plan = gateway.router.plan(&request, &Asked::of(headers, &body)?)?;
    let conversation = notice(&gateway, headers, &request);
    let mut exchange = Exchange::new(gateway, request, body, plan).on(terms).of(conversation);
    if let Err(error) = exchange.open().await {
        let headers = explain(exchange.id(), &exchange.plan, None);
        exchange.failed(&error);
        return Ok((headers, error).into_response());
    }
    if exchange.request().streams() {
        let headers = explain(exchange.id(), &exchange.plan, Some(exchange.model()));
        Ok(streamed(exchange, headers))
    } else {
        whole(exchange).await
    }
}

/// Notes it when a conversation is sent again soon after its answer, and gives its fingerprint.
fn notice(gateway: &Gateway, headers: &HeaderMap, request: &Request) -> Option<Fingerprint> {
    let Request::Chat(chat) = request else { return None };
    let named = |name: &str| headers.get(name).map_or(&b""[..], |value| value.as_bytes());
    let client = [named(header::AUTHORIZATION.as_str()), named(SESSION)];
    let conversation = gateway.recents.fingerprint(&client, &chat.messages);
    if let Some(earlier) = gateway.recents.repeated(conversation, Instant::now()) {
        gateway.books.note(&earlier, Sign::Retry);
    }
    Some(conversation)
}

/// The decision for a conversation, with every candidate's prediction; nothing runs.
pub async fn route(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<RouteReply>, ApiError> {
    let body = read_body(body, gateway.max_body_bytes).await?;
    let request = parse_chat(&body)?;
    let plan = gateway.router.plan(&request, &Asked::of(&headers, &body)?)?;
    Ok(Json(RouteReply::from(plan)))
}

/// A decision as the client sees it: the receipt's fields that exist before anything ran.
#[derive(Debug, Serialize)]
pub struct RouteReply {
    policy: Arc<str>,
    task: TaskClass,
    /// The policy with what the request and its conversation add.
    rule: Rule,
    features: Features,
    /// Known from the second turn of a conversation on.
    session: Option<SessionId>,
    propensity: f64,
    route: Option<Route>,
    model: Option<Arc<str>>,
    reason: String,
    candidates: Arc<[Judged]>,
}

impl From<Plan> for RouteReply {
    fn from(plan: Plan) -> Self {
        let chosen = plan.decision.chosen();
        Self {
            policy: Arc::clone(&plan.policy.name),
            task: plan.features.task,
            features: plan.features,
            session: plan.session,
            propensity: plan.decision.propensity,
            route: chosen.map(|candidate| candidate.route),
            model: chosen.map(|candidate| Arc::clone(&candidate.model)),
            reason: plan.decision.reason.to_string(),
            candidates: plan.decision.judged,
            rule: plan.rule,
        }
    }
}
