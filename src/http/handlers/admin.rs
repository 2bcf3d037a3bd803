//! `POST /admin/models/{id}/load` and `/unload`: an operator's hand on what is in memory.
//!
//! `http::operator` says who may give orders.

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Extension, Json};

use super::models::{ModelCard, card_of};
use crate::backends::llama::{Control, ControlError, UnloadReason};
use crate::http::error::ApiError;
use crate::http::extract::content_type;
use crate::http::extract::path::PathText;
use crate::http::peer::Peer;
use crate::http::state::Edge;
use crate::serving::error::ServeErrorKind;
use crate::serving::models::router_handle::Reloaded;
use crate::serving::{Kind, Model};

/// What an operator can want.
#[derive(Clone, Copy, Debug)]
enum AdminAction {
    Load,
    Unload { drain: bool },
}

/// `POST /admin/models/{id}/{load|unload}`; ids may hold slashes. Answers when it is done, with the
/// model's card.
pub async fn order(
    State(edge): State<Edge>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    PathText(path): PathText,
    RawQuery(query): RawQuery,
) -> Result<Json<ModelCard>, ApiError> {
    check(&edge, peer, &headers)?;
    let unknown = || ApiError::UnknownPath(format!("/admin/models/{path}"));
    let (id, verb) = path.rsplit_once('/').ok_or_else(unknown)?;
    let action = match verb {
        "load" => AdminAction::Load,
        "unload" => AdminAction::Unload { drain: drain(query.as_deref())? },
        _ => return Err(unknown()),
    };
    let model =
        edge.gateway.router.model(id).ok_or_else(|| ServeErrorKind::UnknownModel(id.to_owned()))?;
    apply(&model, control(&model)?, action).await?;
    Ok(Json(card_of(&model)))
}

/// `POST /admin/router/reload`: reads the router and the candidate again; a bad one is refused and
/// the present ones stay.
pub async fn reload(
    State(edge): State<Edge>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Json<Reloaded>, ApiError> {
    check(&edge, peer, &headers)?;
    let read = tokio::task::spawn_blocking(move || edge.gateway.router.reload());
    match read.await {
        Ok(Ok(reloaded)) => Ok(Json(reloaded)),
        Ok(Err(error)) => Err(ApiError::Admin {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            code: "router_refused",
            message: format!("{error}; keeping the current router"),
        }),
        Err(_) => Err(ApiError::INTERNAL),
    }
}

/// Whether running answers may end first.
fn drain(query: Option<&str>) -> Result<bool, ApiError> {
    match query {
        None | Some("" | "drain=false") => Ok(false),
        Some("drain=true") => Ok(true),
        Some(_) => Err(ApiError::InvalidField {
            param: "drain".to_owned(),
            message: "the query can only be drain=true or drain=false".to_owned(),
        }),
    }
}

fn control(model: &Model) -> Result<&Control, ApiError> {
    match &model.primary.kind {
        Kind::Local { control, .. } => Ok(control),
        Kind::Cloud(_) => Err(ApiError::InvalidField {
            param: "model".to_owned(),
            message: format!("`{}` does not run here: only local models are loaded", model.name),
        }),
    }
}

async fn apply(model: &Model, control: &Control, action: AdminAction) -> Result<(), ApiError> {
    let done = match action {
        AdminAction::Load => control.load().await,
        AdminAction::Unload { drain } => control.unload(UnloadReason::Admin, drain).await,
    };
    let name = &model.name;
    done.map_err(|error| match error {
        ControlError::Busy => ApiError::Admin {
            status: StatusCode::CONFLICT,
            code: "model_busy",
            message: format!("`{name}` is busy: wait, or unload it with ?drain=true"),
        },
        ControlError::Failed(_) | ControlError::Stopped => ApiError::Admin {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "load_failed",
            message: format!("`{name}`: {error}"),
        },
        ControlError::Timeout(_) => ApiError::Admin {
            status: StatusCode::GATEWAY_TIMEOUT,
            code: "timeout",
            message: format!("`{name}`: {error}"),
        },
    })
}

/// Refuses orders of pages of foreign origins, bodies that a page can send without asking first,
/// and callers without the right.
fn check(edge: &Edge, peer: Peer, headers: &HeaderMap) -> Result<(), ApiError> {
    if !edge.origins.may_order(headers) {
        return Err(ApiError::ForeignOrigin);
    }
    edge.operator.check(peer, headers)?;
    // No body, no type.
    if headers.contains_key(header::CONTENT_TYPE) {
        content_type::check(headers)?;
    }
    Ok(())
}
