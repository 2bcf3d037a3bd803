//! The one place where a model is chosen: a pure rule from candidates to a ranked decision.
//!
//! No clock, no I/O, no logging; called by the gateway and by replay, so a replay exercises the code that serves.
//! Constraints come first (what cannot or must not answer is excluded, with the reason), preferences second.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Capabilities, Features};
use crate::units::{Dollars, Joules};

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    Local,
    Cloud,
}

impl Route {
    pub fn label(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Cloud => "cloud",
        }
    }
}

/// One model that might answer, with what is predicted of it for this request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    pub model: Arc<str>,
    pub route: Route,
    /// Probability that its answer is good enough, 0 to 1.
    pub p: f64,
    /// Expected energy of the answer; unknown is not zero.
    pub joules: Option<Joules>,
    /// Expected price of the answer.
    pub dollars: Option<Dollars>,
    /// Expected time to the first token, milliseconds.
    pub ttft_ms: Option<f64>,
    /// Longest prompt plus answer, if known.
    pub context_tokens: Option<u32>,
    pub capabilities: Capabilities,
    /// Why it cannot be asked at all just now.
    pub unavailable: Option<Unavailable>,
    /// It is not in memory; `joules` and `ttft_ms` hold what loading it adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<NotLoaded>,
}

/// Where a model is that requests are taken for, but that cannot answer at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotLoaded {
    /// The request loads it.
    Unloaded,
    /// The request joins a load that others caused and pay for.
    Loading,
}

/// Why a model cannot be asked, whatever the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unavailable {
    /// The variable that should hold its API key is not set.
    NoApiKey,
    /// Loading, restarting or failed.
    NotReady,
    /// Every slot and queue place is taken.
    Busy,
}

/// What to minimise among adequate models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    #[default]
    Joules,
    Dollars,
    Latency,
    /// Not a cost: the highest adequacy wins.
    Quality,
}

impl Objective {
    fn cost(self, candidate: &Candidate) -> f64 {
        let known = match self {
            Self::Joules => candidate.joules.map(|joules| joules.0),
            Self::Dollars => candidate.dollars.map(|dollars| dollars.0),
            Self::Latency => candidate.ttft_ms,
            Self::Quality => Some(-candidate.p),
        };
        // Unknown cost is worst: it must not win by silence.
        known.unwrap_or(f64::INFINITY)
    }

    fn label(self) -> &'static str {
        match self {
            Self::Joules => "joules",
            Self::Dollars => "dollars",
            Self::Latency => "latency",
            Self::Quality => "quality",
        }
    }
}

/// The rule for one request: a configured policy plus what the request itself demands.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub name: Arc<str>,
    pub objective: Objective,
    /// Least adequacy a model must reach to compete on cost, 0 to 1.
    pub floor: f64,
    /// The conversation must not leave this machine. Wins over everything.
    pub local_only: bool,
    /// The client named this model; no other may answer.
    pub pinned: Option<Arc<str>>,
}

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
    /// It gives raw prompts no suffix, no best of several candidates and no log-probabilities of the prompt.
    NoRawDetails,
    /// It gives embeddings and the request wants text, or the other way round.
    OtherTask,
}

impl Exclusion {
    /// Whether waiting may help.
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
                | Self::OtherTask
        )
    }
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
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
                "gives raw prompts no `suffix`, no `best_of` above `n` and no log-probabilities of their own tokens"
            }
            Self::NoLogprobs => "gives no log-probabilities",
            Self::NoChoices => "gives one choice only",
            Self::OtherTask => "answers another kind of request",
        })
    }
}

/// A candidate as the decision saw it; part of the receipt and the log, so that replay can decide again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    #[serde(flatten)]
    pub candidate: Candidate,
    pub excluded: Option<Exclusion>,
}

/// Why the first choice is first.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// The cheapest of the models at or above the floor.
    Adequate {
        model: Arc<str>,
        p: f64,
        floor: f64,
        objective: Objective,
    },
    /// No model reaches the floor, so the most adequate one answers.
    BestAvailable {
        model: Arc<str>,
        p: f64,
        floor: f64,
    },
    Pinned {
        model: Arc<str>,
    },
    NoCandidate,
}

impl Reason {
    /// A fixed word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Adequate { .. } => "adequate",
            Self::BestAvailable { .. } => "best_available",
            Self::Pinned { .. } => "pinned",
            Self::NoCandidate => "no_candidate",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adequate { model, p, floor, objective: Objective::Quality } => {
                write!(f, "{model} has the best p = {p:.2} (floor {floor:.2})")
            }
            Self::Adequate { model, p, floor, objective } => {
                write!(
                    f,
                    "{model} costs the least {} with p = {p:.2} at or above the floor {floor:.2}",
                    objective.label()
                )
            }
            Self::BestAvailable { model, p, floor } => {
                write!(
                    f,
                    "no available model reaches the floor {floor:.2}; {model} comes nearest with p = {p:.2}"
                )
            }
            Self::Pinned { model } => write!(f, "the client asked for {model}"),
            Self::NoCandidate => f.write_str("no model can answer this request"),
        }
    }
}

/// What was chosen and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Indices into `judged` of the models that may answer, best first; the rest are fallbacks.
    pub ranked: Vec<usize>,
    /// Every candidate in the order given, with its exclusion if it has one.
    pub judged: Vec<Judged>,
    pub reason: Reason,
}

impl Decision {
    pub fn chosen(&self) -> Option<&Candidate> {
        self.ranked.first().map(|&index| &self.judged[index].candidate)
    }
}

/// Ranks `candidates` for a request with `features` under `policy`.
///
/// First those at or above the floor, cheapest first; then those below it, most adequate first. Ties go to the order
/// given, so the result is deterministic.
pub fn decide(features: &Features, candidates: &[Candidate], policy: &Policy) -> Decision {
    let judge = |candidate: &Candidate| Judged {
        candidate: candidate.clone(),
        excluded: exclusion(features, candidate, policy),
    };
    let judged: Vec<Judged> = candidates.iter().map(judge).collect();
    let mut ranked: Vec<usize> =
        (0..judged.len()).filter(|&index| judged[index].excluded.is_none()).collect();
    ranked.sort_by(|&a, &b| prefer(&candidates[a], &candidates[b], policy));
    let reason =
        ranked.first().map_or(Reason::NoCandidate, |&first| explain(&candidates[first], policy));
    Decision { ranked, judged, reason }
}

fn exclusion(features: &Features, candidate: &Candidate, policy: &Policy) -> Option<Exclusion> {
    let (needs, can) = (features.needs, candidate.capabilities);
    // Privacy first: a candidate that is wrong for several reasons reports the gravest.
    let rules = [
        (policy.local_only && candidate.route == Route::Cloud, Exclusion::LocalOnly),
        (policy.pinned.as_ref().is_some_and(|name| *name != candidate.model), Exclusion::NotNamed),
        (needs.embeddings != can.embeddings, Exclusion::OtherTask),
        (needs.chat && !can.chat, Exclusion::NoChatTemplate),
        (candidate.unavailable == Some(Unavailable::NoApiKey), Exclusion::NoApiKey),
        (candidate.unavailable == Some(Unavailable::NotReady), Exclusion::NotReady),
        (candidate.unavailable == Some(Unavailable::Busy), Exclusion::Busy),
        (needs.tools && !can.tools, Exclusion::NoTools),
        (needs.schema && !can.schema, Exclusion::NoSchema),
        (needs.media && !can.media, Exclusion::NoMedia),
        (needs.logprobs && !can.logprobs, Exclusion::NoLogprobs),
        (needs.choices && !can.choices, Exclusion::NoChoices),
        (needs.raw_details && !can.raw_details, Exclusion::NoRawDetails),
        (surely_too_long(features, candidate), Exclusion::ContextTooShort),
    ];
    rules.into_iter().find_map(|(applies, exclusion)| applies.then_some(exclusion))
}

/// The token estimate is rough, so only a prompt that is too long even at half the estimate is excluded here; the
/// engine counts exactly and refuses the rest.
fn surely_too_long(features: &Features, candidate: &Candidate) -> bool {
    candidate.context_tokens.is_some_and(|limit| features.context_tokens() / 2 > limit)
}

fn prefer(a: &Candidate, b: &Candidate, policy: &Policy) -> Ordering {
    let adequate = |candidate: &Candidate| candidate.p >= policy.floor;
    match (adequate(a), adequate(b)) {
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (true, true) => policy.objective.cost(a).total_cmp(&policy.objective.cost(b)),
        (false, false) => b.p.total_cmp(&a.p),
    }
}

fn explain(first: &Candidate, policy: &Policy) -> Reason {
    let (model, p, floor) = (first.model.clone(), first.p, policy.floor);
    if policy.pinned.is_some() {
        Reason::Pinned { model }
    } else if p >= floor {
        Reason::Adequate { model, p, floor, objective: policy.objective }
    } else {
        Reason::BestAvailable { model, p, floor }
    }
}

#[cfg(test)]
mod tests;
