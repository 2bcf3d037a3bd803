//! Failures whose cause lies in the request, told with the field and the numbers. Pure.

use std::sync::Arc;

use super::error::ApiError;
use crate::backends::backend::CONTEXT_LENGTH_EXCEEDED;
use crate::backends::{BackendError, ErrorKind};
use crate::openai::Request;
use crate::routing::{EvaluatedCandidate, Exclusion, Features, local_faults};
use crate::serving::error::ServeErrorKind;
use crate::serving::plan::Plan;

/// `error` as the client should see it. Only a failure that has one cause for all models changes.
pub fn explained(error: ApiError, request: &Request, plan: &Plan) -> ApiError {
    let ApiError::Serve(kind) = error else { return error };
    match kind {
        ServeErrorKind::NoCandidate { ref exclusions, .. } => {
            let judged = (&plan.features, &*plan.decision.evaluated);
            no_candidate(exclusions, request, judged).unwrap_or(ApiError::Serve(kind))
        }
        ServeErrorKind::Backend(error) => ApiError::from(with_field(error, request)),
        other => other.into(),
    }
}

fn no_candidate(
    exclusions: &[(Arc<str>, Exclusion)],
    request: &Request,
    (features, evaluated): (&Features, &[EvaluatedCandidate]),
) -> Option<ApiError> {
    let all = |cause: fn(&Exclusion) -> bool| {
        let mut named = exclusions.iter().filter(|(_, why)| *why != Exclusion::NotNamed).peekable();
        named.peek().is_some() && named.all(|(_, why)| cause(why))
    };
    if all(|why| matches!(why, Exclusion::UpstreamOnly(_))) {
        local_faults(request).into_iter().next().map(ApiError::LocalFault)
    } else if all(|why| *why == Exclusion::ContextTooShort) {
        let short = evaluated
            .iter()
            .filter(|one| one.excluded == Some(Exclusion::ContextTooShort))
            .filter_map(|one| Some((one.candidate.context_tokens?, &one.candidate.model)));
        short.max_by_key(|(context_tokens, _)| *context_tokens).map(|(context_tokens, model)| {
            ApiError::EstimatedTooLong {
                model: Arc::clone(model),
                prompt_tokens: features.context_tokens(),
                context_tokens,
                field: request.prompt_field(),
            }
        })
    } else {
        None
    }
}

/// A complaint about the length of the prompt names the field that holds it.
fn with_field(mut error: BackendError, request: &Request) -> BackendError {
    if let ErrorKind::InvalidRequest(fault) | ErrorKind::Unsupported(fault) = &mut error.kind
        && fault.code.as_deref() == Some(CONTEXT_LENGTH_EXCEEDED)
    {
        fault.param.get_or_insert_with(|| request.prompt_field().to_owned());
    }
    error
}
