//! `POST /v1/route`: the decision without the answer.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use serde::Serialize;

use crate::http::error::ApiError;
use crate::http::extract::body::{parse, parse_chat, read_body};
use crate::http::extract::options::{Asking, options};
use crate::http::layers::request_id::RequestId;
use crate::http::state::Edge;
use crate::routing::{EvaluatedCandidate, Features, Route, Rule, SessionId, TaskClass};
use crate::serving::plan::Plan;
use crate::shares::Client;
use crate::units::MonotonicNs;

/// The decision for a conversation, with every candidate's prediction; nothing runs.
pub async fn route(
    State(edge): State<Edge>,
    Extension(id): Extension<RequestId>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<RouteReply>, ApiError> {
    let received = read_body(&headers, body, &edge.body, client).await?;
    let asking = Asking { client, says_local: received.says_local, arrived: MonotonicNs::now() };
    let (request, _) = parse(received.bytes, parse_chat)?;
    let options = options(&headers, request.fields(), &id, asking)?;
    let plan = edge.gateway.router.plan(&request, &options)?;
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
    reason: Arc<str>,
    candidates: Arc<[EvaluatedCandidate]>,
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
            reason: plan.reason,
            candidates: plan.decision.evaluated,
            rule: plan.rule,
        }
    }
}
