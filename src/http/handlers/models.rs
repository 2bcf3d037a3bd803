//! `GET /v1/models` and `GET /v1/models/{id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::backends::llama::Phase;
use crate::http::error::ApiError;
use crate::http::extract::path::PathText;
use crate::http::messages::models::{ModelEntry, ModelPage};
use crate::locality::Locality;
use crate::routing::Unavailable;
use crate::serving::error::ServeErrorKind;
use crate::serving::models::deployment::Deployment;
use crate::serving::plan::AUTO;
use crate::serving::snapshot::Snapshot;
use crate::serving::{Gateway, Kind, Model};

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
    /// `wattgate` for the names that route and for aliases, else where the model runs.
    owned_by: &'static str,
    /// Whether it would take a request just now, even if it has to load first.
    ready: bool,
    /// Of a local model: `loaded`, `loading`, `unloaded` (a request loads it) or `down`.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
    /// What it can be asked.
    endpoints: &'static [&'static str],
    /// Whether a local model brings its own chat template; without one, chat is put in ChatML,
    /// which a base model was never taught. Absent while it is not loaded, and for models
    /// elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_template: Option<bool>,
    /// Where it runs; absent for the names that route.
    #[serde(skip_serializing_if = "Option::is_none")]
    deployments: Option<Vec<DeploymentCard>>,
    /// Requests it works on or that wait for it; absent for the names that route.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight: Option<u32>,
    /// Those of them that wait: a new request is behind so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<u32>,
}

/// One place where a model runs.
#[derive(Debug, Serialize)]
pub struct DeploymentCard {
    /// `engine`, or the host and port of an upstream.
    name: Arc<str>,
    /// How far a prompt travels to it.
    locality: Locality,
    /// Whether it would take a request just now.
    ready: bool,
    /// Why it would not: `no_api_key`, `not_ready`.
    #[serde(skip_serializing_if = "Option::is_none")]
    unavailable: Option<Unavailable>,
    in_flight: u32,
}

impl DeploymentCard {
    fn of(deployment: &Deployment) -> Self {
        let health = deployment.backend.health();
        let unavailable = deployment.unavailable(health);
        Self {
            name: Arc::clone(&deployment.name),
            locality: deployment.locality,
            ready: unavailable.is_none(),
            unavailable,
            in_flight: health.in_flight,
        }
    }
}

/// What a local model takes.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit ends the name")]
pub struct Memory {
    /// What it counts for under the memory budget, by its header and settings; 0 until the file was
    /// looked at.
    budgeted_bytes: u64,
    weights_bytes: u64,
    kv_bytes: u64,
    /// What its process has in memory now; absent when there is none.
    resident_bytes: Option<u64>,
}
const TEXT: &[&str] = &["/v1/chat/completions", "/v1/completions"];
const EMBEDDINGS: &[&str] = &["/v1/embeddings"];

/// `GET /v1/models`: the names that route first, then every model; in the form of the client's API.
pub async fn models(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    let data = cards(&gateway);
    if !is_anthropics(&headers) {
        return Json(ModelList { object: "list", data }).into_response();
    }
    let ids = data.into_iter().map(|card| card.id);
    Json(ModelPage::of(ids)).into_response()
}

/// `GET /v1/models/{id}`; ids may hold slashes.
pub async fn model(
    State(gateway): State<Arc<Gateway>>,
    PathText(id): PathText,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let found = cards(&gateway).into_iter().find(|card| card.id == id);
    let card = found.ok_or(ServeErrorKind::UnknownModel(id))?;
    Ok(if is_anthropics(&headers) {
        Json(ModelEntry::of(card.id)).into_response()
    } else {
        Json(card).into_response()
    })
}

/// Whether the client speaks Anthropic's API: it says which version.
fn is_anthropics(headers: &HeaderMap) -> bool {
    headers.contains_key("anthropic-version")
}

fn cards(gateway: &Gateway) -> Vec<ModelCard> {
    let snapshot = gateway.router.snapshot();
    let Snapshot { models, policies, aliases, .. } = &*snapshot;
    let any_ready = models.values().any(|model| model.is_ready());
    let policies = policies.keys().map(|policy| format!("{AUTO}/{policy}"));
    let aliases = aliases.names().map(str::to_owned);
    let routed = std::iter::once(AUTO.to_owned()).chain(policies).chain(aliases);
    let routed = routed.map(|id| plain_card(id, "wattgate", any_ready));
    routed.chain(models.values().map(|model| card_of(model))).collect()
}

/// The card of one configured model.
pub fn card_of(model: &Model) -> ModelCard {
    let health = model.health();
    let embeds = model.capabilities.embeddings;
    let card = ModelCard {
        endpoints: if embeds { EMBEDDINGS } else { TEXT },
        deployments: Some(model.deployments().map(|one| DeploymentCard::of(one)).collect()),
        in_flight: Some(health.in_flight),
        waiting: Some(health.waiting()),
        ..plain_card(model.name.to_string(), model.route().label(), model.is_ready())
    };
    let Kind::Local { control, .. } = &model.primary.kind else { return card };
    let state = control.state();
    let memory = Memory {
        budgeted_bytes: state.memory.bytes(),
        weights_bytes: state.memory.weights_bytes,
        kv_bytes: state.memory.kv_bytes,
        resident_bytes: control.resident_bytes(),
    };
    ModelCard {
        state: Some(state.load_state().label()),
        memory: Some(memory),
        chat_template: chat_template(&state.phase).filter(|_| !embeds),
        ..card
    }
}

fn chat_template(phase: &Phase) -> Option<bool> {
    match phase {
        Phase::Ready(facts) => Some(facts.has_chat_template),
        _ => None,
    }
}

fn plain_card(id: String, owned_by: &'static str, ready: bool) -> ModelCard {
    ModelCard {
        id,
        object: "model",
        created: 0,
        owned_by,
        ready,
        state: None,
        memory: None,
        endpoints: TEXT,
        chat_template: None,
        deployments: None,
        in_flight: None,
        waiting: None,
    }
}
