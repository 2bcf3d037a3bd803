//! Requests as messages to the engine, with OpenAI's defaults. Pure, except for random seeds.
//!
//! Refuses parameters that local models do not support, rather than ignore them.

use super::constraint::constraint;
use super::conversation::conversation;
use super::parameters::{logprobs, sampling};
use super::refusal::{invalid, unsupported};
use crate::backends::backend::{ErrorKind, Job};
use crate::backends::llama::config::Config;
use crate::backends::llama::wire::protocol::{Embed, Prompt, Submission, ToEngine};
use crate::backends::scheduling_options::SchedulingOptions;
use crate::openai::{ChatRequest, CompletionRequest, EmbeddingRequest, Input, Request};
use crate::units::AttemptId;

/// The message for the request's first choice.
pub(super) fn message(job: &Job, config: &Config) -> Result<ToEngine, ErrorKind> {
    let attempt = job.attempt;
    Ok(match &*job.request {
        Request::Chat(request) => ToEngine::Submit(chat(attempt, request, job.terms, config)?),
        Request::Completion(request) => ToEngine::Submit(raw(attempt, request, job.terms, config)?),
        Request::Embedding(request) => ToEngine::Embed(embed(attempt, request, job.terms)),
    })
}

fn chat(
    attempt: AttemptId,
    request: &ChatRequest,
    terms: SchedulingOptions,
    config: &Config,
) -> Result<Submission, ErrorKind> {
    let output_limit = request.output_limit().unwrap_or(config.max_output_tokens);
    if output_limit == 0 {
        return Err(invalid("max_completion_tokens", "the output limit must be at least 1"));
    }
    Ok(Submission {
        attempt,
        prompt: Prompt::Chat(conversation(request)?),
        sampling: sampling(&request.sampling(), config),
        output_limit,
        stop: request.stop.clone().map_or_else(Vec::new, |stop| stop.0),
        ignore_eos: request.ignore_eos.unwrap_or(false),
        logprobs: logprobs(request),
        constraint: constraint(&request.constraints())?,
        least_tokens: request.min_tokens.unwrap_or(0),
        terms,
    })
}

/// The message for the first prompt.
fn raw(
    attempt: AttemptId,
    request: &CompletionRequest,
    terms: SchedulingOptions,
    config: &Config,
) -> Result<Submission, ErrorKind> {
    check(request)?;
    let first = request.prompt.0.first().cloned().unwrap_or_else(|| Input::Text(String::new()));
    Ok(Submission {
        attempt,
        prompt: Prompt::Raw(first),
        sampling: sampling(&request.sampling(), config),
        output_limit: request.output_limit(),
        stop: request.stop.clone().map_or_else(Vec::new, |stop| stop.0),
        ignore_eos: request.ignore_eos.unwrap_or(false),
        logprobs: request.logprobs.map(|top| u8::try_from(top).unwrap_or(u8::MAX)),
        constraint: constraint(&request.constraints())?,
        least_tokens: request.min_tokens.unwrap_or(0),
        terms,
    })
}

fn embed(attempt: AttemptId, request: &EmbeddingRequest, terms: SchedulingOptions) -> Embed {
    let inputs = request.input.0.clone();
    Embed { attempt, inputs, dimensions: request.dimensions, terms }
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
