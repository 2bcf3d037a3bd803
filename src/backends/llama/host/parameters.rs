//! Conversion of OpenAI's request fields, with OpenAI's defaults, to the engine's. Ranges are
//! validated before.

use std::hash::{BuildHasher, RandomState};

use crate::backends::llama::config::Config;
use crate::backends::llama::wire::sampling::Sampling;
use crate::openai::{ChatRequest, SamplingFields};

/// The model's own defaults come before OpenAI's.
pub(super) fn sampling(request: &SamplingFields<'_>, config: &Config) -> Sampling {
    let default = Sampling::default();
    // Ids beyond i32 are in no vocabulary; refusals name them unsigned.
    let token = u32::cast_signed;
    let bias = request.logit_bias.into_iter().flatten();
    Sampling {
        temperature: request.temperature.or(config.temperature).unwrap_or(default.temperature),
        // −1 means all tokens, like 0.
        top_k: request
            .top_k
            .map(|k| u32::try_from(k).unwrap_or(0))
            .or(config.top_k)
            .unwrap_or(default.top_k),
        top_p: request.top_p.or(config.top_p).unwrap_or(default.top_p),
        min_p: request.min_p.or(config.min_p).unwrap_or(default.min_p),
        frequency_penalty: request.frequency_penalty.unwrap_or(default.frequency_penalty),
        presence_penalty: request.presence_penalty.unwrap_or(default.presence_penalty),
        repeat_penalty: request.repeat_penalty.unwrap_or(default.repeat_penalty),
        logit_bias: bias.map(|(&id, &bias)| (token(id), bias)).collect(),
        seed: seed(request.seed),
    }
}

/// The requested seed, or a random one: the standard library's hasher keys are random per call.
fn seed(asked: Option<i64>) -> u64 {
    asked.map_or_else(|| RandomState::new().hash_one(()), i64::cast_unsigned)
}

/// Number of most probable tokens to report with each token; `None` for no log-probabilities.
pub(super) fn logprobs(request: &ChatRequest) -> Option<u8> {
    let top = request.top_logprobs.unwrap_or(0);
    request.logprobs.unwrap_or(false).then(|| u8::try_from(top).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_comes_first_then_the_model_and_then_openai() {
        let config = Config { temperature: Some(0.5), top_k: Some(40), ..Config::default() };
        let none = sampling(&SamplingFields::default(), &config);
        assert_eq!((none.temperature, none.top_k, none.top_p), (0.5, 40, 1.0));
        let asked =
            SamplingFields { temperature: Some(0.0), top_k: Some(-1), ..Default::default() };
        let asked = sampling(&asked, &config);
        assert_eq!((asked.temperature, asked.top_k), (0.0, 0));
    }
}
