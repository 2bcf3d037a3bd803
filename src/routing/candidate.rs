//! A model that might answer, with what is predicted of it for one request. Pure.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Capabilities;
use crate::locality::Locality;
use crate::units::{Dollars, Grams, Joules};

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
    /// The nearest deployment that may answer; absent where the route says it: here or a third party.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// Probability that its answer is good enough, 0 to 1.
    pub p: f64,
    /// Expected energy of the answer; unknown is not zero.
    pub joules: Option<Joules>,
    /// Expected CO2-equivalent of that energy; unknown where no grid is configured, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grams: Option<Grams>,
    /// Expected price of the answer.
    pub dollars: Option<Dollars>,
    /// Expected time to the first token, milliseconds.
    pub ttft_ms: Option<f64>,
    /// Expected length of the answer, tokens, all choices together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u32>,
    /// Longest prompt plus answer, if known.
    pub context_tokens: Option<u32>,
    pub capabilities: Capabilities,
    /// Why it cannot be asked at all just now.
    pub unavailable: Option<Unavailable>,
    /// It is not in memory; the costs hold what loading it adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<NotLoaded>,
    /// It has read the beginning of this conversation; the costs hold what that saves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
}

/// What one answer is expected to take; unknown is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    pub joules: Option<Joules>,
    pub dollars: Option<Dollars>,
    /// Time to the first token, milliseconds.
    pub ttft_ms: Option<f64>,
    /// CO2 equivalent.
    pub grams: Option<Grams>,
}

/// The beginning of a conversation that a model need not read again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cache {
    /// Prompt tokens of this request that it has read.
    pub tokens: u32,
    /// What the answer would take without: what the model falls back to once the conversation leaves it.
    pub without: Costs,
}

impl Candidate {
    /// How far the prompt travels at least.
    pub fn locality(&self) -> Locality {
        self.locality.unwrap_or(match self.route {
            Route::Local => Locality::OnHost,
            Route::Cloud => Locality::ThirdParty,
        })
    }

    pub fn costs(&self) -> Costs {
        let Self { joules, dollars, ttft_ms, grams, .. } = *self;
        Costs { joules, dollars, ttft_ms, grams }
    }
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
