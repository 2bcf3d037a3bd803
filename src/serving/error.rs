//! Failures of the serving core, without any status or wire format. Pure.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::backends::{BackendError, ErrorKind, ErrorSource};
use crate::routing::{EvaluatedCandidate, Exclusion, OverrideError};

/// How long to wait for one of many short tasks to end.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Failure of a request: its kind, the party at fault, and whether the same request may succeed
/// later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeError {
    pub kind: ServeErrorKind,
    pub source: ErrorSource,
    pub retryable: bool,
}

// By hand: `thiserror` would take the field `source` for the cause.
impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl std::error::Error for ServeError {}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServeErrorKind {
    #[error(
        "the model `{0}` does not exist: GET /v1/models lists what can be asked, and `auto` chooses"
    )]
    UnknownModel(String),
    #[error("the model `{asked}` gives no embeddings; {}", name_some(.known))]
    NoEmbeddingModel { asked: String, known: Vec<Arc<str>> },
    /// The policy does not grant an override.
    #[error(transparent)]
    Override(OverrideError),
    /// The decision excluded every model, each for the reason given.
    #[error("no model can answer this request ({})", explain(.exclusions))]
    NoCandidate {
        exclusions: Arc<[(Arc<str>, Exclusion)]>,
        /// When one of them may take requests again, if that is known.
        retry_after: Option<Duration>,
    },
    #[error(transparent)]
    Backend(BackendError),
    /// The model counted more tokens than its context holds; `field` holds them.
    #[error("{error}")]
    TooLong { error: BackendError, field: &'static str },
    #[error(
        "no request with the id `{0}` is remembered: only ended ones are, and only the latest few thousand; the id is `wattgate.request_id` of the answer, not an upstream's own"
    )]
    UnknownRequest(String),
    /// Other searches of the log are in progress.
    #[error("too many old requests are being looked up; try again")]
    SearchBusy,
    #[error("internal error; see the gateway log")]
    Internal,
}

impl From<ServeErrorKind> for ServeError {
    fn from(kind: ServeErrorKind) -> Self {
        let (source, retryable) = (kind.source(), kind.is_retryable());
        Self { kind, source, retryable }
    }
}

impl From<BackendError> for ServeError {
    fn from(error: BackendError) -> Self {
        ServeErrorKind::Backend(error).into()
    }
}

impl From<OverrideError> for ServeError {
    fn from(refusal: OverrideError) -> Self {
        ServeErrorKind::Override(refusal).into()
    }
}

impl ServeErrorKind {
    /// `ready_in` says when a model that is not ready may be again.
    pub fn no_candidate(
        judged: &[EvaluatedCandidate],
        ready_in: impl Fn(&str) -> Option<Duration>,
    ) -> Self {
        let exclusions =
            || judged.iter().filter_map(|one| Some((one.candidate.model.clone(), one.excluded?)));
        // A model for other tasks is to blame only if nothing else could have answered either.
        let irrelevant = [Exclusion::NotNamed, Exclusion::OtherTask];
        let relevant = exclusions().any(|(_, reason)| !irrelevant.contains(&reason));
        let blamed =
            |(_, reason): &(Arc<str>, Exclusion)| !(relevant && *reason == Exclusion::OtherTask);
        let transient = exclusions().filter(|(_, reason)| reason.is_transient());
        Self::NoCandidate {
            exclusions: exclusions().filter(blamed).collect(),
            retry_after: transient.filter_map(|(model, _)| ready_in(&model)).min(),
        }
    }

    fn source(&self) -> ErrorSource {
        match self {
            Self::UnknownModel(_)
            | Self::NoEmbeddingModel { .. }
            | Self::Override(_)
            | Self::TooLong { .. }
            | Self::UnknownRequest(_) => ErrorSource::Client,
            Self::NoCandidate { exclusions, .. } if about_the_request(exclusions) => {
                ErrorSource::Client
            }
            Self::NoCandidate { .. } => ErrorSource::Backend,
            Self::Backend(error) => error.kind.source(),
            Self::SearchBusy | Self::Internal => ErrorSource::Us,
        }
    }

    /// How long the client should wait, where waiting helps and the time is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Backend(error) => error.kind.retry_after(),
            Self::NoCandidate { exclusions, retry_after } => retry_after.or_else(|| {
                let busy = exclusions.iter().any(|(_, reason)| *reason == Exclusion::Busy);
                busy.then_some(BUSY_RETRY_AFTER)
            }),
            Self::SearchBusy => Some(BUSY_RETRY_AFTER),
            _ => None,
        }
    }

    pub(super) fn is_retryable(&self) -> bool {
        match self {
            Self::NoCandidate { exclusions, .. } => {
                exclusions.iter().any(|(_, reason)| reason.is_transient())
            }
            Self::Backend(error) => !matches!(
                error.kind,
                ErrorKind::InvalidRequest(_)
                    | ErrorKind::Unsupported(_)
                    | ErrorKind::ContextExceeded { .. }
                    | ErrorKind::Credentials { .. }
                    | ErrorKind::DeadlineExceeded
            ),
            Self::SearchBusy => true,
            _ => false,
        }
    }
}

/// Whether another request could be answered where this one cannot, and waiting would not help.
fn about_the_request(exclusions: &[(Arc<str>, Exclusion)]) -> bool {
    let transient = exclusions.iter().any(|(_, reason)| reason.is_transient());
    !transient && exclusions.iter().any(|(_, reason)| reason.is_about_the_request())
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

    #[test]
    fn fault_and_retry_follow_from_the_kind() {
        let excluded = |reason| ServeErrorKind::NoCandidate {
            exclusions: [("m".into(), reason)].into(),
            retry_after: None,
        };
        let backend = |kind| ServeErrorKind::Backend(BackendError { model: "m".into(), kind });
        for (kind, source, retryable) in [
            (ServeErrorKind::UnknownModel("x".into()), ErrorSource::Client, false),
            (ServeErrorKind::Internal, ErrorSource::Us, false),
            (ServeErrorKind::SearchBusy, ErrorSource::Us, true),
            (excluded(Exclusion::Busy), ErrorSource::Backend, true),
            (excluded(Exclusion::NoTools), ErrorSource::Client, false),
            (excluded(Exclusion::LocalOnly), ErrorSource::Backend, false),
            (backend(ErrorKind::EngineDied), ErrorSource::Backend, true),
            (backend(ErrorKind::DeadlineExceeded), ErrorSource::Client, false),
            (backend(ErrorKind::Credentials { status: 401 }), ErrorSource::Us, false),
        ] {
            let error = ServeError::from(kind);
            assert_eq!((error.source, error.retryable), (source, retryable), "{error:?}");
        }
    }
}
