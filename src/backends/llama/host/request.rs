//! What the engine needs to know of a request that is no conversation: a raw prompt, or texts to embed.
//!
//! Refuses what only an upstream could do, by name, rather than leaving it out of the answer.

use super::parameters::sampling;
use super::protocol::{Embed, Prompt, Submission};
use crate::backends::backend::ErrorKind;
use crate::backends::terms::Terms;
use crate::openai::{CompletionRequest, EmbeddingRequest, Input};
use crate::units::AttemptId;

/// For the first prompt and its first choice.
pub(super) fn submission(
    attempt: AttemptId,
    request: &CompletionRequest,
    terms: Terms,
) -> Result<Submission, ErrorKind> {
    check(request)?;
    let first = request.prompt.0.first().cloned().unwrap_or_else(|| Input::Text(String::new()));
    Ok(Submission {
        attempt,
        prompt: Prompt::Raw(first),
        sampling: sampling(&request.sampling()),
        output_limit: request.output_limit(),
        stop: request.stop.clone().map_or_else(Vec::new, |stop| stop.0),
        ignore_eos: request.ignore_eos.unwrap_or(false),
        logprobs: request.logprobs.map(|top| u8::try_from(top).unwrap_or(u8::MAX)),
        constraint: None,
        terms,
    })
}

pub(super) fn embed(attempt: AttemptId, request: &EmbeddingRequest, terms: Terms) -> Embed {
    let inputs = request.input.0.clone();
    Embed { attempt, inputs, dimensions: request.dimensions, deadline: terms.deadline }
}

fn check(request: &CompletionRequest) -> Result<(), ErrorKind> {
    let echo = request.echo.unwrap_or(false);
    let has_tokens = request.prompt.0.iter().any(|prompt| matches!(prompt, Input::Tokens(_)));
    if request.has_suffix() {
        Err(unsupported("suffix", "text after the completion"))
    } else if request.ranks_candidates() {
        Err(unsupported("best_of", "the best of more candidates than `n`"))
    } else if echo && request.logprobs.is_some() {
        Err(unsupported("logprobs", "log-probabilities of a prompt that is echoed"))
    } else if echo && has_tokens {
        Err(unsupported("echo", "the text of a prompt that is given as tokens"))
    } else {
        Ok(())
    }
}

fn unsupported(param: &str, what: &str) -> ErrorKind {
    ErrorKind::InvalidRequest {
        message: format!("`{param}`: local models do not give {what}"),
        param: Some(param.to_owned()),
        code: Some("unsupported_parameter".to_owned()),
    }
}
