//! `POST /admin/models/{id}/load` and `/unload`: an operator's hand on what is in memory.
//!
//! Only for this machine unless the config says otherwise: there are no accounts here to tell an
//! operator by.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::{ConnectInfo, Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::models::{ModelCard, card_of};
use crate::backends::llama::{Control, ControlError, UnloadReason};
use crate::http::error::ApiError;
use crate::http::origin::is_local_name;
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
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Path(path): Path<String>,
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
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
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

/// Headers that proxies add.
const OF_PROXIES: [&str; 8] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "cf-connecting-ip",
    "true-client-ip",
];

/// Who may give orders, and how: no page of a foreign origin, and no body but JSON, which a page
/// cannot send without asking first.
fn check(edge: &Edge, peer: SocketAddr, headers: &HeaderMap) -> Result<(), ApiError> {
    if !edge.origins.may_order(headers) {
        return Err(ApiError::ForeignOrigin);
    }
    check_peer(edge.admin.allow_remote, peer, headers)?;
    let is_json = |kind: &HeaderValue| {
        let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case("application/json")
    };
    if headers.get(header::CONTENT_TYPE).is_none_or(is_json) {
        return Ok(());
    }
    Err(ApiError::Admin {
        status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
        code: "unsupported_media_type",
        message: "/admin takes no body, or one of application/json".to_owned(),
    })
}

/// Refuses peers of other machines. Behind a proxy every peer is local, so forwarded requests are
/// refused too, and so are requests to a foreign name that a local browser was made to resolve to
/// this machine.
fn check_peer(allow_remote: bool, peer: SocketAddr, headers: &HeaderMap) -> Result<(), ApiError> {
    let forwarded = OF_PROXIES.iter().any(|name| headers.contains_key(*name));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let local =
        peer.ip().to_canonical().is_loopback() && !forwarded && host.is_none_or(is_local_name);
    if !(local || allow_remote) {
        return Err(ApiError::Admin {
            status: StatusCode::FORBIDDEN,
            code: "not_local",
            message: "/admin is for this machine only; [admin] allow_remote = true opens it"
                .to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(remote: bool, peer: &str, headers: &[(&'static str, &str)]) -> bool {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        check_peer(remote, peer.parse().unwrap(), &headers.collect()).is_ok()
    }

    #[test]
    fn only_this_machine_may_give_orders() {
        assert!(allowed(false, "127.0.0.1:5", &[]) && allowed(false, "[::1]:5", &[]));
        assert!(allowed(false, "[::ffff:127.0.0.1]:5", &[]));
        assert!(!allowed(false, "10.0.0.1:5", &[]));
        assert!(!allowed(false, "127.0.0.1:5", &[("x-forwarded-for", "10.0.0.1")]));
        assert!(allowed(true, "10.0.0.1:5", &[]));
    }

    #[test]
    fn a_foreign_name_and_a_proxy_are_not_this_machine() {
        assert!(allowed(false, "127.0.0.1:5", &[("host", "localhost:8080")]));
        assert!(allowed(false, "127.0.0.1:5", &[("host", "[::1]:8080")]));
        assert!(!allowed(false, "127.0.0.1:5", &[("host", "evil.example:8080")]));
        assert!(allowed(true, "10.0.0.1:5", &[("host", "gateway.example")]));
        for name in OF_PROXIES {
            assert!(!allowed(false, "127.0.0.1:5", &[(name, "x")]), "{name}");
        }
    }
}
