//! Constraints: candidates that cannot or must not answer a request, and why. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Candidate, Features, Rule, Unavailable};
use crate::openai::RequestField;

/// Why a candidate may not answer this request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exclusion {
    LocalOnly,
    NotNamed,
    NoApiKey,
    NotReady,
    Busy,
    ContextTooShort,
    NoTools,
    NoSchema,
    NoMedia,
    NoLogprobs,
    NoChoices,
    /// It has no chat template and only continues raw prompts.
    NoChatTemplate,
    /// It supports neither `suffix` nor `best_of` nor log-probabilities of the prompt for raw
    /// prompts.
    NoRawDetails,
    /// It does not honour this field, or not with this value.
    UpstreamOnly(RequestField),
    /// It computes embeddings and the request wants text, or the other way round.
    OtherTask,
    OverJoules,
    OverDollars,
    /// There is a budget, and the energy of this model is unknown.
    UnknownJoules,
    UnknownDollars,
}

impl Exclusion {
    /// Whether a retry later may succeed.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::NotReady | Self::Busy)
    }

    /// Whether another request to the same models could be answered.
    pub fn is_about_the_request(self) -> bool {
        matches!(
            self,
            Self::ContextTooShort
                | Self::NoTools
                | Self::NoSchema
                | Self::NoMedia
                | Self::NoLogprobs
                | Self::NoChoices
                | Self::NoChatTemplate
                | Self::NoRawDetails
                | Self::UpstreamOnly(_)
                | Self::OtherTask
        ) || self.is_about_a_budget()
    }

    /// Whether a larger budget could help.
    pub fn is_about_a_budget(self) -> bool {
        matches!(
            self,
            Self::OverJoules | Self::OverDollars | Self::UnknownJoules | Self::UnknownDollars
        )
    }
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UpstreamOnly(field) => return write!(f, "does not support this `{field}`"),
            Self::LocalOnly => "the conversation must stay on this machine",
            Self::NotNamed => "another model was asked for",
            Self::NoApiKey => "its API key is not set",
            Self::NotReady => "not ready",
            Self::Busy => "busy",
            Self::ContextTooShort => "the prompt is longer than its context",
            Self::NoTools => "cannot call tools",
            Self::NoSchema => "cannot follow a response format",
            Self::NoMedia => "reads text only",
            Self::NoChatTemplate => "has no chat template: it continues raw prompts (/v1/completions)",
            Self::NoRawDetails => {
                "supports no `suffix`, no `best_of` above `n` and no prompt log-probabilities for raw prompts"
            }
            Self::NoLogprobs => "gives no log-probabilities",
            Self::NoChoices => "gives one choice only",
            Self::OtherTask => "answers another kind of request",
            Self::OverJoules => "would take more energy than the budget allows",
            Self::OverDollars => "would cost more than the budget allows",
            Self::UnknownJoules => "its energy is unknown and there is a budget",
            Self::UnknownDollars => "its price is unknown and there is a budget",
        })
    }
}

/// Why `candidate` may not answer, `None` if it may; the most important reason of several.
pub(super) fn exclusion(
    features: &Features,
    candidate: &Candidate,
    rule: &Rule,
) -> Option<Exclusion> {
    let (needs, can) = (features.needs, candidate.capabilities);
    // Privacy first.
    let rules = [
        (candidate.locality() > rule.reach(), Exclusion::LocalOnly),
        (rule.pinned.as_ref().is_some_and(|name| *name != candidate.model), Exclusion::NotNamed),
        (needs.embeddings != can.embeddings, Exclusion::OtherTask),
        (needs.chat && !can.chat, Exclusion::NoChatTemplate),
        (candidate.unavailable == Some(Unavailable::NoApiKey), Exclusion::NoApiKey),
        (needs.tools && !can.tools, Exclusion::NoTools),
        (needs.schema && !can.schema, Exclusion::NoSchema),
        (needs.media && !can.media, Exclusion::NoMedia),
        (needs.logprobs && !can.logprobs, Exclusion::NoLogprobs),
        (needs.choices && !can.choices, Exclusion::NoChoices),
        (needs.raw_details && !can.raw_details, Exclusion::NoRawDetails),
        (
            needs.upstream_fields && !can.upstream_fields,
            Exclusion::UpstreamOnly(features.upstream_only.first().unwrap_or(RequestField::Other)),
        ),
        (surely_too_long(features, candidate), Exclusion::ContextTooShort),
    ];
    let broken = rules.into_iter().find_map(|(applies, exclusion)| applies.then_some(exclusion));
    // Last what passes: a model that could not answer anyway is not worth waiting for.
    broken.or_else(|| over_budget(candidate, rule)).or(match candidate.unavailable {
        Some(Unavailable::NotReady) => Some(Exclusion::NotReady),
        Some(Unavailable::Busy) => Some(Exclusion::Busy),
        Some(Unavailable::NoApiKey) | None => None,
    })
}

/// The engine counts exactly and refuses the rest, and the next candidate answers. One that drops
/// turns instead would not refuse: it is held back already where the estimate is far too long.
fn surely_too_long(features: &Features, candidate: &Candidate) -> bool {
    let far = if candidate.drops_turns { features.context_tokens() / 2 } else { 0 };
    let least = features.least_context_tokens().max(far);
    candidate.context_tokens.is_some_and(|limit| least > limit)
}

fn over_budget(candidate: &Candidate, rule: &Rule) -> Option<Exclusion> {
    let joules = match (rule.max_joules, candidate.joules) {
        (Some(most), Some(expected)) => (expected > most).then_some(Exclusion::OverJoules),
        (Some(_), None) => Some(Exclusion::UnknownJoules),
        (None, _) => None,
    };
    joules.or(match (rule.max_dollars, candidate.dollars) {
        (Some(most), Some(expected)) => (expected > most).then_some(Exclusion::OverDollars),
        (Some(_), None) => Some(Exclusion::UnknownDollars),
        (None, _) => None,
    })
}
