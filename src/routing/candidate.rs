//! A model that might answer, with the predictions for one request. Pure.

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

/// One model that might answer, with the predictions for this request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    pub model: Arc<str>,
    pub route: Route,
    /// The nearest deployment that may answer; absent where the route says it: here or a third
    /// party.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// Probability that its answer is good enough, 0 to 1.
    pub p: f64,
    /// Expected energy of the answer; `None` if unknown, which is not zero.
    pub joules: Option<Joules>,
    /// Expected CO2 equivalent of that energy; `None` also where no grid is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grams: Option<Grams>,
    /// Expected price of the answer; `None` if unknown.
    pub dollars: Option<Dollars>,
    /// Expected time to the first token, milliseconds.
    pub ttft_ms: Option<f64>,
    /// Expected length of the answer in tokens, all choices together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u32>,
    /// Limit of prompt plus answer in tokens, if known.
    pub context_tokens: Option<u32>,
    /// It drops the oldest turns of a conversation that is too long, so it must not seem to fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drops_turns: bool,
    pub capabilities: Capabilities,
    /// Reason why the model cannot take any request at present.
    pub unavailable: Option<Unavailable>,
    /// Set if the model is not in memory; the costs then include loading it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<NotLoaded>,
    /// Set if the model has read the beginning of this conversation; the costs then exclude that
    /// part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
}

/// Expected costs of one answer; `None` is unknown, not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    pub joules: Option<Joules>,
    pub dollars: Option<Dollars>,
    /// Time to the first token, milliseconds.
    pub ttft_ms: Option<f64>,
    /// CO2 equivalent.
    pub grams: Option<Grams>,
}

/// The cached beginning of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cache {
    /// Prompt tokens of this request in the cache.
    pub tokens: u32,
    /// Costs without the cache, which the model has again once the conversation leaves it.
    pub without: Costs,
}

impl Candidate {
    /// A model that can do everything, and of whose costs and limits nothing is known.
    pub fn of_unknown_cost(model: &str, route: Route, p: f64) -> Self {
        Self {
            model: model.into(),
            route,
            locality: None,
            p,
            joules: None,
            grams: None,
            dollars: None,
            ttft_ms: None,
            output_tokens: None,
            context_tokens: None,
            drops_turns: false,
            capabilities: Capabilities::ALL,
            unavailable: None,
            state: None,
            cache: None,
        }
    }

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

/// State of a model that accepts requests but is not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotLoaded {
    /// The request loads it.
    Unloaded,
    /// The request waits for a load that earlier requests caused and are charged for.
    Loading,
}

/// Reason why a model cannot take any request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unavailable {
    /// The environment variable of its API key is not set.
    NoApiKey,
    /// Loading, restarting or failed.
    NotReady,
    /// Every slot and every queue entry is taken.
    Busy,
}
