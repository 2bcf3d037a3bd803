//! Every failure a client can see, and the one place that maps it to a status and OpenAI's envelope.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::books::Busy;
use crate::backends::backend::CONTEXT_LENGTH_EXCEEDED;
use crate::backends::{BackendError, ErrorKind};
use crate::openai::{ErrorBody, ErrorEnvelope};
use crate::routing::{Exclusion, Judged, Refusal};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    #[error("the body is not valid JSON: {0}")]
    NotJson(String),
    #[error("the model `{asked}` gives no embeddings; {}", name_some(.known))]
    NoEmbeddingModel { asked: String, known: Vec<Arc<str>> },
    #[error("{message}")]
    InvalidField { param: String, message: String },
    /// What the request asks of its policy is not granted.
    #[error(transparent)]
    Override(#[from] Refusal),
    #[error("the body is larger than {limit_bytes} bytes")]
    BodyTooLarge { limit_bytes: usize },
    #[error("the body could not be read")]
    BodyUnreadable,
    #[error(
        "the model `{0}` does not exist: GET /v1/models lists what can be asked, and `auto` chooses"
    )]
    UnknownModel(String),
    #[error("there is no {0} here")]
    UnknownPath(String),
    #[error("{method} is not allowed here")]
    MethodNotAllowed { method: Method },
    #[error(
        "no request with the id `{0}` is remembered: only ended ones are, and only the latest few thousand; the id is `wattgate.request_id` of the answer, not an upstream's own"
    )]
    UnknownRequest(String),
    #[error("{0}; try again")]
    Searching(#[from] Busy),
    /// The decision left nobody; says why for each model.
    #[error("no model can answer this request ({})", explain(.0))]
    NoCandidate(Arc<[(Arc<str>, Exclusion)]>),
    /// An order to `/admin` that was not carried out.
    #[error("{message}")]
    Admin { status: StatusCode, code: &'static str, message: String },
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The model counted more tokens than it can read; `field` holds them.
    #[error("{error}")]
    TooLong { error: BackendError, field: &'static str },
    #[error("the gateway failed; its log says more")]
    Internal,
}

impl ApiError {
    pub fn no_candidate(judged: &[Judged]) -> Self {
        let exclusions =
            || judged.iter().filter_map(|one| Some((one.candidate.model.clone(), one.excluded?)));
        // A model for other tasks is to blame only if nothing else could have answered either.
        let beside_the_point = [Exclusion::NotNamed, Exclusion::OtherTask];
        let relevant = exclusions().any(|(_, reason)| !beside_the_point.contains(&reason));
        let blamed =
            |(_, reason): &(Arc<str>, Exclusion)| !(relevant && *reason == Exclusion::OtherTask);
        Self::NoCandidate(exclusions().filter(blamed).collect())
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotJson(_)
            | Self::InvalidField { .. }
            | Self::NoEmbeddingModel { .. }
            | Self::BodyUnreadable
            | Self::Override(Refusal::NoLambda { .. }) => StatusCode::BAD_REQUEST,
            Self::Override(_) => StatusCode::FORBIDDEN,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnknownModel(_) | Self::UnknownPath(_) | Self::UnknownRequest(_) => {
                StatusCode::NOT_FOUND
            }
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoCandidate(exclusions) => no_candidate_status(exclusions),
            Self::Admin { status, .. } => *status,
            Self::Backend(error) | Self::TooLong { error, .. } => backend_status(&error.kind),
            Self::Searching(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The body, as OpenAI shapes it.
    pub fn envelope(&self) -> ErrorEnvelope {
        let status = self.status();
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::FORBIDDEN => "permission_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "api_error",
        };
        ErrorEnvelope {
            error: ErrorBody {
                message: self.to_string(),
                kind: kind.to_owned(),
                param: self.param(),
                code: self.code(),
            },
        }
    }

    fn param(&self) -> Option<String> {
        match self {
            Self::InvalidField { param, .. } => Some(param.clone()),
            Self::Override(refusal) => Some(refusal.wish().label().to_owned()),
            Self::UnknownModel(_) | Self::NoEmbeddingModel { .. } => Some("model".to_owned()),
            Self::Backend(BackendError {
                kind: ErrorKind::InvalidRequest { param, .. }, ..
            }) => param.clone(),
            Self::TooLong { field, .. } => Some((*field).to_owned()),
            _ => None,
        }
    }

    fn code(&self) -> Option<String> {
        let code = match self {
            Self::NotJson(_) => "invalid_json",
            Self::InvalidField { .. } | Self::Override(Refusal::NoLambda { .. }) => "invalid_value",
            Self::Override(_) => "override_not_allowed",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::BodyUnreadable => "body_unreadable",
            Self::Admin { code, .. } => code,
            Self::UnknownModel(_) => "model_not_found",
            Self::NoEmbeddingModel { .. } => "no_embedding_model",
            Self::UnknownPath(_) => "unknown_path",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::UnknownRequest(_) => "request_not_found",
            Self::Searching(_) => "busy",
            Self::NoCandidate(exclusions) => no_candidate_code(exclusions),
            Self::Backend(BackendError {
                kind: ErrorKind::InvalidRequest { code, .. }, ..
            }) => {
                return code.clone();
            }
            Self::TooLong { .. }
            | Self::Backend(BackendError { kind: ErrorKind::ContextExceeded { .. }, .. }) => {
                CONTEXT_LENGTH_EXCEEDED
            }
            Self::Backend(error) => error.kind.label(),
            Self::Internal => "internal_error",
        };
        Some(code.to_owned())
    }

    /// How long the client should wait, where waiting helps.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Backend(BackendError {
                kind:
                    ErrorKind::Overloaded { retry_after, .. } | ErrorKind::NotLoaded { retry_after, .. },
                ..
            }) => Some(*retry_after),
            Self::Backend(BackendError {
                kind: ErrorKind::RateLimited { retry_after }, ..
            }) => *retry_after,
            Self::NoCandidate(exclusions) if blames(exclusions, Exclusion::Busy) => {
                Some(Duration::from_secs(1))
            }
            Self::Searching(_) => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, envelope) = (self.status(), self.envelope());
        let code = envelope.error.code.as_deref().unwrap_or("none");
        // The code only: messages may quote what the client sent.
        tracing::info!(http.status = status.as_u16(), error.code = code, "refused: {code}");
        let mut response = (status, axum::Json(envelope)).into_response();
        if let Some(wait) = self.retry_after() {
            // Whole seconds, and never 0, which clients take for "at once".
            let seconds = HeaderValue::from(wait.as_secs().max(1));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

fn backend_status(kind: &ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidRequest { .. } | ErrorKind::ContextExceeded { .. } => {
            StatusCode::BAD_REQUEST
        }
        ErrorKind::Overloaded { .. } | ErrorKind::RateLimited { .. } => {
            StatusCode::TOO_MANY_REQUESTS
        }
        ErrorKind::Unavailable(_) | ErrorKind::NotLoaded { .. } => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Timeout { .. } | ErrorKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Credentials { .. }
        | ErrorKind::UpstreamStatus { .. }
        | ErrorKind::Protocol(_)
        | ErrorKind::EngineDied => StatusCode::BAD_GATEWAY,
    }
}

fn blames(exclusions: &[(Arc<str>, Exclusion)], exclusion: Exclusion) -> bool {
    exclusions.iter().any(|(_, reason)| *reason == exclusion)
}

/// What could change the outcome, gentlest first: waiting, then another request, then another config.
fn no_candidate_status(exclusions: &[(Arc<str>, Exclusion)]) -> StatusCode {
    if blames(exclusions, Exclusion::Busy) {
        StatusCode::TOO_MANY_REQUESTS
    } else if exclusions.iter().any(|(_, reason)| reason.is_transient()) || exclusions.is_empty() {
        StatusCode::SERVICE_UNAVAILABLE
    } else if exclusions.iter().any(|(_, reason)| reason.is_about_the_request()) {
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

fn no_candidate_code(exclusions: &[(Arc<str>, Exclusion)]) -> &'static str {
    match no_candidate_status(exclusions) {
        StatusCode::TOO_MANY_REQUESTS => "overloaded",
        StatusCode::BAD_REQUEST if blames(exclusions, Exclusion::ContextTooShort) => {
            CONTEXT_LENGTH_EXCEEDED
        }
        StatusCode::BAD_REQUEST
            if exclusions.iter().any(|(_, reason)| reason.is_about_a_budget()) =>
        {
            "over_budget"
        }
        StatusCode::BAD_REQUEST => "unsupported_request",
        _ => "no_candidate",
    }
}

fn name_some(models: &[Arc<str>]) -> String {
    match models {
        [] => "none is configured that does".to_owned(),
        models => format!("name one of: {}", models.join(", ")),
    }
}

fn explain(exclusions: &[(Arc<str>, Exclusion)]) -> String {
    let named = exclusions.iter().filter(|(_, reason)| *reason != Exclusion::NotNamed);
    let reasons: Vec<String> = named.map(|(model, reason)| format!("{model}: {reason}")).collect();
    if reasons.is_empty() { "none is configured".to_owned() } else { reasons.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::Override;

    #[test]
    fn every_failure_has_its_status_type_and_code() {
        let backend = |kind| ApiError::Backend(BackendError { model: "m".into(), kind });
        let excluded = |reason| ApiError::NoCandidate([("m".into(), reason)].into());
        let second = Duration::from_secs(1);
        let context = ErrorKind::ContextExceeded { prompt_tokens: 9, context_tokens: 4 };
        let invalid = ErrorKind::InvalidRequest { message: "no".into(), param: None, code: None };
        let table = [
            (ApiError::NotJson(String::new()), "400 invalid_request_error invalid_json"),
            (ApiError::BodyTooLarge { limit_bytes: 1 }, "413 invalid_request_error body_too_large"),
            (ApiError::UnknownModel("x".into()), "404 invalid_request_error model_not_found"),
            (ApiError::Internal, "500 api_error internal_error"),
            (backend(invalid), "400 invalid_request_error -"),
            (backend(context), "400 invalid_request_error context_length_exceeded"),
            (
                backend(ErrorKind::Overloaded { retry_after: second, ahead: 3 }),
                "429 rate_limit_error overloaded",
            ),
            (
                backend(ErrorKind::RateLimited { retry_after: None }),
                "429 rate_limit_error rate_limited",
            ),
            (backend(ErrorKind::Unavailable("x".into())), "503 api_error unavailable"),
            (backend(ErrorKind::Credentials { status: 401 }), "502 api_error credentials"),
            (backend(ErrorKind::Timeout { after: second }), "504 api_error timeout"),
            (backend(ErrorKind::UpstreamStatus { status: 500 }), "502 api_error upstream_status"),
            (backend(ErrorKind::Protocol(String::new())), "502 api_error protocol"),
            (backend(ErrorKind::EngineDied), "502 api_error engine_died"),
            (excluded(Exclusion::Busy), "429 rate_limit_error overloaded"),
            (excluded(Exclusion::NotReady), "503 api_error no_candidate"),
            (excluded(Exclusion::LocalOnly), "503 api_error no_candidate"),
            (
                ApiError::NoEmbeddingModel { asked: "x".into(), known: vec![] },
                "400 invalid_request_error no_embedding_model",
            ),
            (excluded(Exclusion::OtherTask), "400 invalid_request_error unsupported_request"),
            (excluded(Exclusion::NoTools), "400 invalid_request_error unsupported_request"),
            (excluded(Exclusion::OverJoules), "400 invalid_request_error over_budget"),
            (
                ApiError::Override(Refusal::OverLimit {
                    policy: "p".into(),
                    wish: Override::MaxJoules,
                    most: String::new(),
                }),
                "403 permission_error override_not_allowed",
            ),
            (
                excluded(Exclusion::ContextTooShort),
                "400 invalid_request_error context_length_exceeded",
            ),
        ];
        for (error, expected) in table {
            let body = error.envelope().error;
            let code = body.code.as_deref().unwrap_or("-");
            let shown = format!("{} {} {code}", error.status().as_u16(), body.kind);
            assert_eq!(shown, expected, "{error:?}");
        }
    }
}
