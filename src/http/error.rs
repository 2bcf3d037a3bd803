//! Every failure a client can see, and the one place that maps it to a status and OpenAI's
//! envelope.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};

use super::receipt::write_with_receipt;
use crate::backends::backend::{CONTEXT_LENGTH_EXCEEDED, context_exceeded};
use crate::backends::{BackendError, ErrorKind};
use crate::openai::{ErrorBody, ErrorEnvelope};
use crate::routing::{Exclusion, LocalFault, OverrideError};
use crate::serving::error::{ServeError, ServeErrorKind};
use crate::shares::Refusal;
use crate::traffic::Receipt;

/// A failure as the client sees it: the edge's own, or one of the serving core.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    #[error("the body is not valid JSON: {0}")]
    NotJson(String),
    #[error("{message}")]
    InvalidField { param: String, message: String },
    /// Read again without the first ones; only where that fails does a client see it.
    #[error("`{0}` is there twice")]
    RepeatedField(String),
    /// No model but local ones may answer, and they do not do this.
    #[error("{}", .0.message)]
    LocalFault(LocalFault),
    #[error("the body's encoding is unknown ({0}): gzip, deflate or none can be read")]
    UnknownEncoding(String),
    #[error("the body is not what its Content-Encoding says")]
    Undecodable,
    #[error("the body is larger than {limit_bytes} bytes")]
    BodyTooLarge { limit_bytes: usize },
    #[error("the body could not be read")]
    BodyUnreadable,
    #[error("the body did not arrive within {} ms", .after.as_millis())]
    BodyTimeout { after: Duration },
    /// No model's context holds the prompt, by an estimate of its length; `field` holds it.
    #[error("{model}: {}", context_exceeded(&format!("about {prompt_tokens}"), *.context_tokens))]
    EstimatedTooLong {
        model: Arc<str>,
        prompt_tokens: u32,
        context_tokens: u32,
        field: &'static str,
    },
    #[error(
        "a web page of another origin may not do this; `[server] cors_origins` lists those that may"
    )]
    ForeignOrigin,
    #[error("this kind of request needs the header `content-type: application/json`")]
    NotJsonType,
    #[error("{0}")]
    InvalidHost(&'static str),
    /// A page may have made its own name stand for this machine.
    #[error(
        "the gateway is not called by this name; `[server] hosts` lists the names of its Host header"
    )]
    ForeignHost,
    #[error("the request could not be read as HTTP")]
    MalformedHead,
    #[error("the address and headers of the request are too large, or too many")]
    HeadTooLarge,
    #[error("the head of the request did not arrive in time")]
    HeadTimeout,
    #[error("all connections are taken; try again")]
    ConnectionsFull,
    #[error("too many bytes of request bodies are in memory; try again")]
    BodiesFull,
    #[error("request bodies of this client take its share of the memory; wait for their answers")]
    BodiesOfClient,
    #[error("Previous response with id '{0}' not found.")]
    UnknownPreviousResponse(String),
    #[error("Response with id '{0}' not found.")]
    UnknownResponse(String),
    #[error("answers are streamed as server-sent events here, not over WebSockets")]
    NoWebSockets,
    #[error("unknown path {0}")]
    UnknownPath(String),
    #[error("method {method} is not allowed for this path")]
    MethodNotAllowed { method: Method },
    /// An order to `/admin` that was not carried out.
    #[error("{message}")]
    Admin { status: StatusCode, code: &'static str, message: String },
    #[error(transparent)]
    Serve(ServeErrorKind),
}

impl From<ServeError> for ApiError {
    fn from(error: ServeError) -> Self {
        Self::Serve(error.kind)
    }
}

impl From<ServeErrorKind> for ApiError {
    fn from(kind: ServeErrorKind) -> Self {
        Self::Serve(kind)
    }
}

impl From<BackendError> for ApiError {
    fn from(error: BackendError) -> Self {
        Self::Serve(ServeErrorKind::Backend(error))
    }
}

impl ApiError {
    /// A fault of the gateway itself.
    pub const INTERNAL: Self = Self::Serve(ServeErrorKind::Internal);

    /// The failure of a request for whose body there is no memory.
    pub fn bodies(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full => Self::BodiesFull,
            Refusal::Share => Self::BodiesOfClient,
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotJson(_)
            | Self::InvalidField { .. }
            | Self::RepeatedField(_)
            | Self::LocalFault(_)
            | Self::EstimatedTooLong { .. }
            | Self::Undecodable
            | Self::InvalidHost(_)
            | Self::UnknownPreviousResponse(_)
            | Self::MalformedHead
            | Self::BodyUnreadable => StatusCode::BAD_REQUEST,
            Self::NoWebSockets => StatusCode::UPGRADE_REQUIRED,
            Self::UnknownEncoding(_) | Self::NotJsonType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout { .. } | Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::ForeignOrigin | Self::ForeignHost => StatusCode::FORBIDDEN,
            Self::ConnectionsFull | Self::BodiesFull => StatusCode::SERVICE_UNAVAILABLE,
            Self::BodiesOfClient => StatusCode::TOO_MANY_REQUESTS,
            Self::UnknownPath(_) | Self::UnknownResponse(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Admin { status, .. } => *status,
            Self::Serve(kind) => serve_status(kind),
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
        let (n_prompt_tokens, n_ctx) = self.lengths().unzip();
        ErrorEnvelope {
            error: ErrorBody {
                message: clipped(self.message(), MESSAGE_BYTES_MAX),
                kind: kind.to_owned(),
                param: self.param().map(|param| clipped(param, PARAM_BYTES_MAX)),
                code: self.code().map(|code| clipped(code, PARAM_BYTES_MAX)),
                n_prompt_tokens,
                n_ctx,
            },
        }
    }

    /// The message, with the words by which clients know that a prompt is too long: an upstream may
    /// say it in its own.
    fn message(&self) -> String {
        let message = self.to_string();
        let is_known = || message.to_ascii_lowercase().contains("maximum context length");
        if self.code().as_deref() == Some(CONTEXT_LENGTH_EXCEEDED) && !is_known() {
            return format!("the prompt is too long: it exceeds the context window: {message}");
        }
        message
    }

    /// Tokens of a prompt that is too long, and of the context.
    pub fn lengths(&self) -> Option<(u32, u32)> {
        match self {
            Self::EstimatedTooLong { prompt_tokens, context_tokens, .. }
            | Self::Serve(
                ServeErrorKind::TooLong {
                    error:
                        BackendError {
                            kind: ErrorKind::ContextExceeded { prompt_tokens, context_tokens },
                            ..
                        },
                    ..
                }
                | ServeErrorKind::Backend(BackendError {
                    kind: ErrorKind::ContextExceeded { prompt_tokens, context_tokens },
                    ..
                }),
            ) => Some((*prompt_tokens, *context_tokens)),
            _ => None,
        }
    }

    fn param(&self) -> Option<String> {
        match self {
            Self::InvalidField { param, .. } | Self::RepeatedField(param) => {
                Some(param.clone()).filter(|param| !param.is_empty())
            }
            Self::LocalFault(fault) => Some(fault.param.clone()),
            Self::UnknownPreviousResponse(_) => Some("previous_response_id".to_owned()),
            Self::EstimatedTooLong { field, .. } => Some((*field).to_owned()),
            Self::Serve(kind) => serve_param(kind),
            _ => None,
        }
    }

    fn code(&self) -> Option<String> {
        let code = match self {
            Self::NotJson(_) => "invalid_json",
            Self::InvalidField { .. } | Self::RepeatedField(_) => "invalid_value",
            Self::LocalFault(fault) => fault.code,
            Self::EstimatedTooLong { .. } => CONTEXT_LENGTH_EXCEEDED,
            Self::ForeignOrigin => "origin_not_allowed",
            Self::ForeignHost => "host_not_allowed",
            Self::InvalidHost(_) => "invalid_host",
            Self::NotJsonType => "unsupported_media_type",
            Self::MalformedHead => "malformed_request",
            Self::HeadTooLarge => "headers_too_large",
            Self::HeadTimeout => "head_timeout",
            Self::ConnectionsFull => "connections_full",
            Self::BodiesFull => "bodies_full",
            Self::BodiesOfClient => "client_share",
            Self::UnknownEncoding(_) => "unsupported_encoding",
            Self::Undecodable => "invalid_encoding",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::BodyUnreadable => "body_unreadable",
            Self::BodyTimeout { .. } => "body_timeout",
            Self::Admin { code, .. } => code,
            Self::UnknownPreviousResponse(_) => "previous_response_not_found",
            Self::UnknownResponse(_) => "response_not_found",
            Self::NoWebSockets => "no_websockets",
            Self::UnknownPath(_) => "unknown_path",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::Serve(kind) => return serve_code(kind),
        };
        Some(code.to_owned())
    }

    /// The code for the log. An upstream may quote the request in its own, so its failures go by
    /// their kind.
    fn logged_code(&self) -> String {
        match self {
            Self::Serve(ServeErrorKind::Backend(error)) => error.kind.label().to_owned(),
            _ => self.code().unwrap_or_default(),
        }
    }

    /// How long the client should wait, where waiting helps.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Serve(kind) => kind.retry_after(),
            Self::ConnectionsFull | Self::BodiesFull | Self::BodiesOfClient => {
                Some(FULL_RETRY_AFTER)
            }
            _ => None,
        }
    }
}

impl ApiError {
    /// The reply; with the receipt beside the error where a model may have worked on the request.
    pub fn reply(&self, receipt: Option<&Receipt>) -> Response {
        self.reply_with(&serde_json::to_vec(&self.envelope()).unwrap_or_default(), receipt)
    }

    /// As [`Self::reply`], with the envelope of another surface, the text of a JSON object.
    pub fn reply_with(&self, envelope: &[u8], receipt: Option<&Receipt>) -> Response {
        let status = self.status();
        let code = self.logged_code();
        tracing::info!(http.status = status.as_u16(), error.code = code, "refused: {code}");
        let body = match receipt {
            Some(receipt) => {
                let mut body = BytesMut::new();
                write_with_receipt(&mut body, envelope, receipt);
                body.freeze()
            }
            None => Bytes::copy_from_slice(envelope),
        };
        let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut response = (status, [json], body).into_response();
        if let Some(wait) = self.retry_after() {
            // Whole seconds (RFC 9110), rounded up; never 0, which clients take for "at once".
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let seconds = HeaderValue::from(seconds.max(1));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.reply(None)
    }
}

/// How long to wait where others must end first: answers take seconds.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Longest message, and longest param and code, bytes: all may quote the request.
const MESSAGE_BYTES_MAX: usize = 2000;
const PARAM_BYTES_MAX: usize = 200;

fn clipped(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
    }
    text
}

fn serve_status(kind: &ServeErrorKind) -> StatusCode {
    match kind {
        ServeErrorKind::NoEmbeddingModel { .. }
        | ServeErrorKind::Override(OverrideError::NoLambda { .. }) => StatusCode::BAD_REQUEST,
        ServeErrorKind::Override(_) => StatusCode::FORBIDDEN,
        ServeErrorKind::UnknownModel(_) | ServeErrorKind::UnknownRequest(_) => {
            StatusCode::NOT_FOUND
        }
        ServeErrorKind::NoCandidate { exclusions, .. } => no_candidate_status(exclusions),
        ServeErrorKind::Backend(error) | ServeErrorKind::TooLong { error, .. } => {
            backend_status(&error.kind)
        }
        ServeErrorKind::SearchBusy => StatusCode::SERVICE_UNAVAILABLE,
        ServeErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn serve_param(kind: &ServeErrorKind) -> Option<String> {
    match kind {
        ServeErrorKind::Override(error) => Some(error.kind().label().to_owned()),
        ServeErrorKind::UnknownModel(_) | ServeErrorKind::NoEmbeddingModel { .. } => {
            Some("model".to_owned())
        }
        ServeErrorKind::Backend(BackendError {
            kind: ErrorKind::InvalidRequest(fault) | ErrorKind::Unsupported(fault),
            ..
        }) => fault.param.clone(),
        ServeErrorKind::TooLong { field, .. } => Some((*field).to_owned()),
        _ => None,
    }
}

fn serve_code(kind: &ServeErrorKind) -> Option<String> {
    let code = match kind {
        ServeErrorKind::Override(OverrideError::NoLambda { .. }) => "invalid_value",
        ServeErrorKind::Override(_) => "override_not_allowed",
        ServeErrorKind::UnknownModel(_) => "model_not_found",
        ServeErrorKind::NoEmbeddingModel { .. } => "no_embedding_model",
        ServeErrorKind::UnknownRequest(_) => "request_not_found",
        ServeErrorKind::SearchBusy => "busy",
        ServeErrorKind::NoCandidate { exclusions, .. } => no_candidate_code(exclusions),
        ServeErrorKind::Backend(BackendError {
            kind: ErrorKind::InvalidRequest(fault) | ErrorKind::Unsupported(fault),
            ..
        }) => return fault.code.clone(),
        ServeErrorKind::TooLong { .. }
        | ServeErrorKind::Backend(BackendError {
            kind: ErrorKind::ContextExceeded { .. }, ..
        }) => CONTEXT_LENGTH_EXCEEDED,
        ServeErrorKind::Backend(error) => error.kind.label(),
        ServeErrorKind::Internal => "internal_error",
    };
    Some(code.to_owned())
}

fn backend_status(kind: &ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidRequest(fault) | ErrorKind::Unsupported(fault) => {
            StatusCode::from_u16(fault.status).unwrap_or(StatusCode::BAD_REQUEST)
        }
        ErrorKind::ContextExceeded { .. } => StatusCode::BAD_REQUEST,
        ErrorKind::Overloaded { .. }
        | ErrorKind::ClientShare { .. }
        | ErrorKind::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
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

/// What could change the outcome, gentlest first: waiting, then another request, then another
/// config.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::RequestFault;
    use crate::routing::OverrideKind;

    #[test]
    fn every_failure_has_its_status_type_and_code() {
        let backend = |kind| {
            ApiError::Serve(ServeErrorKind::Backend(BackendError { model: "m".into(), kind }))
        };
        let excluded = |reason| {
            ApiError::Serve(ServeErrorKind::NoCandidate {
                exclusions: [("m".into(), reason)].into(),
                retry_after: None,
            })
        };
        let second = Duration::from_secs(1);
        let context = ErrorKind::ContextExceeded { prompt_tokens: 9, context_tokens: 4 };
        let invalid = RequestFault::new("no", None, None).of_request();
        let table = [
            (ApiError::NotJson(String::new()), "400 invalid_request_error invalid_json"),
            (ApiError::BodyTooLarge { limit_bytes: 1 }, "413 invalid_request_error body_too_large"),
            (
                ServeErrorKind::UnknownModel("x".into()).into(),
                "404 invalid_request_error model_not_found",
            ),
            (ApiError::INTERNAL, "500 api_error internal_error"),
            (backend(invalid), "400 invalid_request_error -"),
            (backend(context), "400 invalid_request_error context_length_exceeded"),
            (
                backend(ErrorKind::Overloaded { retry_after: second, ahead: 3 }),
                "429 rate_limit_error overloaded",
            ),
            (
                backend(ErrorKind::RateLimited { retry_after: None, reason: None }),
                "429 rate_limit_error rate_limited",
            ),
            (backend(ErrorKind::Unavailable("x".into())), "503 api_error unavailable"),
            (backend(ErrorKind::Credentials { status: 401 }), "502 api_error credentials"),
            (backend(ErrorKind::Timeout { after: second }), "504 api_error timeout"),
            (
                backend(ErrorKind::UpstreamStatus { status: 500, retry_after: None, reason: None }),
                "502 api_error upstream_status",
            ),
            (backend(ErrorKind::Protocol(String::new())), "502 api_error protocol"),
            (backend(ErrorKind::EngineDied), "502 api_error engine_died"),
            (excluded(Exclusion::Busy), "429 rate_limit_error overloaded"),
            (excluded(Exclusion::NotReady), "503 api_error no_candidate"),
            (excluded(Exclusion::LocalOnly), "503 api_error no_candidate"),
            (
                ServeErrorKind::NoEmbeddingModel { asked: "x".into(), known: vec![] }.into(),
                "400 invalid_request_error no_embedding_model",
            ),
            (excluded(Exclusion::OtherTask), "400 invalid_request_error unsupported_request"),
            (excluded(Exclusion::NoTools), "400 invalid_request_error unsupported_request"),
            (excluded(Exclusion::OverJoules), "400 invalid_request_error over_budget"),
            (
                ServeErrorKind::Override(OverrideError::OverLimit {
                    policy: "p".into(),
                    kind: OverrideKind::MaxJoules,
                    most: String::new(),
                })
                .into(),
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
