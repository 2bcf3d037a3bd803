//! From a request to a decision: which policy applies, what each model is predicted to give, who is asked first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::ApiError;
use super::learnt::Learnt;
use super::state::Router;
use crate::openai::Request;
use crate::routing::text::TextVector;
use crate::routing::{Candidate, Decision, Features, Policy, decide};
use crate::traffic::Shadow;

/// The model name that lets the router choose.
pub const AUTO: &str = "auto";

/// A decision and what it was made from.
pub struct Plan {
    pub policy: Policy,
    pub features: Features,
    pub decision: Decision,
    /// The router that decided.
    pub learnt: Arc<Learnt>,
    /// What a candidate router would have chosen.
    pub shadow: Option<Shadow>,
    /// What deciding took.
    pub took: Duration,
}

/// What the same rule chooses of the same candidates where another router predicts their adequacy.
fn shadow(
    features: &Features,
    candidates: &[Candidate],
    policy: &Policy,
    p: impl Fn(usize) -> f64,
) -> Shadow {
    let mut others = candidates.to_vec();
    others.iter_mut().enumerate().for_each(|(place, one)| one.p = p(place));
    let decision = decide(features, &others, policy);
    Shadow {
        model: decision.chosen().map(|chosen| Arc::clone(&chosen.model)),
        p: others.into_iter().map(|one| (one.model, one.p)).collect(),
    }
}

impl Router {
    /// Decides without running anything. `local_only` keeps the request on this machine whatever the policy says.
    pub fn plan(&self, request: &Request, local_only: bool) -> Result<Plan, ApiError> {
        let started = Instant::now();
        let mut policy = match request {
            Request::Embedding(request) => self.embedding_policy(&request.model)?,
            _ => self.policy(request.model())?,
        };
        policy.local_only |= local_only;
        let features = Features::of(request);
        let text = TextVector::of_messages(&request.messages());
        let learnt = self.learnt.router();
        let mut candidates = self.candidates(&learnt, &text, &features);
        let mut decision = decide(&features, &candidates, &policy);
        if decision.ranked.is_empty() {
            // Leaving turns out is the last resort: only when nobody can take the whole conversation.
            self.lift_context_limits(&mut candidates);
            decision = decide(&features, &candidates, &policy);
        }
        let candidate = self.learnt.candidate();
        // What routers are trained on are prompts to choose a model for.
        if policy.pinned.is_none() {
            learnt.watch_drift(&text);
            if let Some(candidate) = &candidate {
                candidate.watch_drift(&text);
            }
        }
        let shadow = candidate.map(|candidate| {
            let p = |place| candidate.adequacy.predict(&text, candidate.ability(place));
            shadow(&features, &candidates, &policy, p)
        });
        let took = started.elapsed();
        Ok(Plan { policy, features, decision, learnt, shadow, took })
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

    /// Vectors of different models cannot be compared, so nothing chooses among several and none stands in for
    /// another: the request is pinned to the one it names, or to the only one there is.
    fn embedding_policy(&self, asked: &str) -> Result<Policy, ApiError> {
        let policy = self.policy(asked)?;
        let embedding = || self.models.iter().filter(|model| model.capabilities.embeddings);
        let pinned = match &policy.pinned {
            Some(name) => embedding().find(|model| model.name == *name),
            None => embedding().next().filter(|_| embedding().nth(1).is_none()),
        };
        let pinned = pinned.ok_or_else(|| ApiError::NoEmbeddingModel {
            asked: asked.to_owned(),
            known: embedding().map(|model| Arc::clone(&model.name)).collect(),
        })?;
        Ok(Policy { pinned: Some(Arc::clone(&pinned.name)), ..policy })
    }

    fn lift_context_limits(&self, candidates: &mut [Candidate]) {
        for (model, candidate) in self.models.iter().zip(candidates) {
            if model.drops_oldest_turns {
                candidate.context_tokens = None;
            }
        }
    }

    fn candidates(
        &self,
        learnt: &Learnt,
        text: &TextVector,
        features: &Features,
    ) -> Vec<Candidate> {
        let candidate = |(place, model): (usize, &super::Model)| {
            let p = learnt.adequacy.predict(text, learnt.ability(place));
            model.candidate(features, p, &self.meter)
        };
        self.models.iter().enumerate().map(candidate).collect()
    }
}
