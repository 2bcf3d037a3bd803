//! From a request to a decision: which policy applies, what each model is predicted to give, who is asked first.

use std::time::{Duration, Instant};

use super::error::ApiError;
use super::state::Router;
use crate::openai::ChatRequest;
use crate::routing::text::TextVector;
use crate::routing::{Candidate, Decision, Features, Policy, decide};

/// The model name that lets the router choose.
pub const AUTO: &str = "auto";

/// A decision and what it was made from.
pub struct Plan {
    pub policy: Policy,
    pub features: Features,
    pub decision: Decision,
    /// What deciding took.
    pub took: Duration,
}

impl Router {
    /// Decides without running anything. `local_only` keeps the request on this machine whatever the policy says.
    pub fn plan(&self, request: &ChatRequest, local_only: bool) -> Result<Plan, ApiError> {
        let started = Instant::now();
        let mut policy = self.policy(&request.model)?;
        policy.local_only |= local_only;
        let features = Features::of(request);
        let candidates = self.candidates(request, &features);
        let decision = decide(&features, &candidates, &policy);
        Ok(Plan { policy, features, decision, took: started.elapsed() })
    }

    /// `auto` takes the default policy, `auto/<policy>` a named one, and a model's own name pins it.
    fn policy(&self, asked: &str) -> Result<Policy, ApiError> {
        let unknown = || ApiError::UnknownModel(asked.to_owned());
        let named = match asked.strip_prefix(AUTO) {
            Some("") => Some(&*self.default_policy),
            Some(rest) => rest.strip_prefix('/'),
            None => None,
        };
        if let Some(name) = named {
            return self.policies.get(name).cloned().ok_or_else(unknown);
        }
        let pinned = self.model(asked).ok_or_else(unknown)?.name.clone();
        let default = self.policies.get(&self.default_policy).cloned().ok_or(ApiError::Internal)?;
        Ok(Policy { pinned: Some(pinned), ..default })
    }

    fn candidates(&self, request: &ChatRequest, features: &Features) -> Vec<Candidate> {
        let text = TextVector::of(request);
        let candidate = |model: &super::Model| {
            model.candidate(features, self.adequacy.predict(&text, model.ability), &self.meter)
        };
        self.models.iter().map(candidate).collect()
    }
}
