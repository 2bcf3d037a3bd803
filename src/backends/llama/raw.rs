//! What the engine needs to know of a request that is no conversation: a raw prompt, or texts to embed.
//!
//! Refuses what only an upstream could do, by name, rather than leaving it out of the answer.

use super::parameters::seed;
use super::protocol::{Embed, Prompt, Submission};
use super::sampling::Sampling;
use crate::backends::backend::ErrorKind;
use crate::backends::terms::Terms;
use crate::openai::{CompletionRequest, EmbeddingRequest, Input};
use crate::units::AttemptId;

pub(super) fn submission(
    attempt: AttemptId,
    request: &CompletionRequest,
    terms: Terms,
) -> Result<Submission, ErrorKind> {
    check(request)?;
    let [prompt] = request.prompt.0.as_slice() else {
        return Err(unsupported("prompt", "several prompts in one request"));
    };
    Ok(Submission {
        attempt,
        prompt: Prompt::Raw(prompt.clone()),
        sampling: sampling(request),
        output_limit: request.output_limit(),
        stop: request.stop.clone().map_or_else(Vec::new, |stop| stop.0),
        ignore_eos: false,
        logprobs: None,
        constraint: None,
        terms,
    })
}

pub(super) fn embed(attempt: AttemptId, request: &EmbeddingRequest, terms: Terms) -> Embed {
    let inputs = request.input.0.clone();
    Embed { attempt, inputs, dimensions: request.dimensions, deadline: terms.deadline }
}

fn check(request: &CompletionRequest) -> Result<(), ErrorKind> {
    let echoes_tokens = request.echo.unwrap_or(false)
        && request.prompt.0.iter().any(|prompt| matches!(prompt, Input::Tokens(_)));
    if request.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        Err(unsupported("suffix", "text after the completion"))
    } else if request.logprobs.is_some() {
        Err(unsupported("logprobs", "log-probabilities of raw completions"))
    } else if request.n.max(request.best_of).unwrap_or(1) > 1 {
        Err(unsupported("n", "several choices of one prompt"))
    } else if echoes_tokens {
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

fn sampling(request: &CompletionRequest) -> Sampling {
    let default = Sampling::default();
    Sampling {
        temperature: request.temperature.unwrap_or(default.temperature),
        top_p: request.top_p.unwrap_or(default.top_p),
        seed: seed(request.seed),
        ..default
    }
}
