//! Online training: the answered attempts of a request update the statistics of their models.

use crate::energy::MeterHandle;
use crate::openai::{FinishReason, Usage};
use crate::routing::Features;
use crate::serving::attempt_state::AttemptState;
use crate::traffic::AttemptOutcome;

use super::model::Model;
use super::online_stats::Observed;

/// Trains `model` on an attempt that ended `ended_ms` after the request's arrival. Returns by how
/// many tokens its length was mispredicted; `None` if it gave no whole answer.
pub fn train(
    model: &Model,
    attempt: &AttemptState,
    features: &Features,
    ended_ms: f64,
    meter: &MeterHandle,
) -> Option<u64> {
    let usage = attempt.usage.filter(|_| attempt.outcome == AttemptOutcome::Answered)?;
    Some(model.learn(features, &observed(attempt, &usage, ended_ms), meter))
}

fn observed(attempt: &AttemptState, usage: &Usage, ended_ms: f64) -> Observed {
    let own_ms = attempt.first_token_ms.map(|ms| ms - attempt.began_ms);
    Observed {
        computed_tokens: usage.prompt_tokens.saturating_sub(usage.cached_tokens()),
        completion_tokens: usage.completion_tokens,
        cut: attempt.finish == Some(FinishReason::Length),
        first_token_ms: own_ms.filter(|_| !attempt.queued),
        answer_ms: attempt.first_token_ms.map(|ms| ended_ms - ms),
    }
}
