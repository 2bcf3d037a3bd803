//! From a request to a decision: which policy applies, what each model is predicted to give, who is asked first.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::{ServeError, ServeErrorKind};
use super::gateway::Router;
use super::models::model::Model;
use super::models::router_handle::LoadedRouter;
use super::options::RequestOptions;
use crate::openai::Request;
use crate::routing::features::waits_for_tool;
use crate::routing::session::{Known, Place};
use crate::routing::text::TextVector;
use crate::routing::{
    Candidate, Decision, Explore, Features, Policy, PolicyOverrides, Rule, SessionId, Stay, decide,
};
use crate::traffic::Shadow;

/// The model name that lets the router choose.
pub const AUTO: &str = "auto";

/// A decision and what it was made from.
pub struct Plan {
    pub policy: Arc<Policy>,
    pub rule: Rule,
    pub overrides: PolicyOverrides,
    pub features: Features,
    pub decision: Decision,
    /// Where the request stands in its conversation, if anything tells.
    pub place: Option<Place>,
    /// The conversation; none yet at its first turn, until the request is being answered.
    pub session: Option<SessionId>,
    /// The router that decided.
    pub router: Arc<LoadedRouter>,
    /// What a candidate router would have chosen.
    pub shadow: Option<Shadow>,
    /// What deciding took.
    pub took: Duration,
}

/// What a model name means.
struct Addressed {
    policy: Arc<Policy>,
    pinned: Option<Arc<str>>,
    floor: Option<f64>,
}

/// What the same rule chooses of the same candidates where another router predicts their adequacy.
fn shadow(
    features: &Features,
    candidates: &[Candidate],
    rule: &Rule,
    p: impl Fn(usize) -> f64,
) -> Shadow {
    let mut others = candidates.to_vec();
    others.iter_mut().enumerate().for_each(|(place, one)| one.p = p(place));
    let decision = decide(features, &others, rule);
    Shadow {
        model: decision.chosen().map(|chosen| Arc::clone(&chosen.model)),
        p: others.into_iter().map(|one| (one.model, one.p)).collect(),
    }
}

impl Router {
    /// Decides without running anything and without remembering anything.
    pub fn plan(&self, request: &Request, options: &RequestOptions) -> Result<Plan, ServeError> {
        let started = Instant::now();
        let addressed = match request {
            Request::Embedding(request) => self.address_embedding(&request.model)?,
            _ => self.address(request.model())?,
        };
        let features = Features::of(request);
        let place = self.conversations.place(request, options);
        let known = place.as_ref().map(|place| self.conversations.known(place)).unwrap_or_default();
        let overrides = PolicyOverrides {
            floor: options.overrides.floor.or(addressed.floor),
            ..options.overrides.clone()
        };
        let rule = rule(request, &features, &addressed, &overrides, &known)?;
        let text = TextVector::of_messages(&request.messages());
        let router = self.handle.router();
        let mut candidates = self.candidates(&router, &text, &features, place.as_ref(), &known);
        let mut decision = decide(&features, &candidates, &rule);
        if decision.ranked.is_empty() {
            // Leaving turns out is the last resort: only when nobody can take the whole conversation.
            self.lift_context_limits(&mut candidates);
            decision = decide(&features, &candidates, &rule);
        }
        let candidate = self.handle.candidate();
        // What routers are trained on are prompts to choose a model for.
        if rule.pinned.is_none() {
            router.watch_drift(&text);
            if let Some(candidate) = &candidate {
                candidate.watch_drift(&text);
            }
        }
        let shadow = candidate.map(|candidate| {
            let p = |place: usize| {
                let (name, ability) = (&self.models[place].name, candidate.ability(place));
                candidate.adequacy.predict_named(&text, name, ability)
            };
            shadow(&features, &candidates, &rule, p)
        });
        Ok(Plan {
            policy: addressed.policy,
            rule,
            overrides,
            features,
            decision,
            place,
            session: known.id,
            router,
            shadow,
            took: started.elapsed(),
        })
    }

    /// `auto` takes the default policy, `auto/<policy>` a named one, a model's own name pins it, and RouteLLM's
    /// `router-<name>-<threshold>` sets the floor.
    fn address(&self, asked: &str) -> Result<Addressed, ServeError> {
        let unknown = || ServeError::from(ServeErrorKind::UnknownModel(asked.to_owned()));
        let policy = |name: &str| self.policies.get(name).cloned();
        let named = match asked.strip_prefix(AUTO) {
            Some("") => Some(&*self.default_policy),
            Some(rest) => rest.strip_prefix('/'),
            None => None,
        };
        if let Some(name) = named {
            let policy = policy(name).ok_or_else(unknown)?;
            return Ok(Addressed { policy, pinned: None, floor: None });
        }
        let policy = policy(&self.default_policy).ok_or(ServeErrorKind::Internal)?;
        let (pinned, floor) = match self.model(asked) {
            Some(model) => (Some(Arc::clone(&model.name)), None),
            None => (None, Some(floor_of_threshold(asked).ok_or_else(unknown)?)),
        };
        Ok(Addressed { policy, pinned, floor })
    }

    /// Vectors of different models cannot be compared, so nothing chooses among several and none stands in for
    /// another: the request is pinned to the one it names, or to the only one there is.
    fn address_embedding(&self, asked: &str) -> Result<Addressed, ServeError> {
        let addressed = self.address(asked)?;
        let embedding = || self.models.iter().filter(|model| model.capabilities.embeddings);
        let pinned = match &addressed.pinned {
            Some(name) => embedding().find(|model| model.name == *name),
            None => embedding().next().filter(|_| embedding().nth(1).is_none()),
        };
        let pinned = pinned.ok_or_else(|| ServeErrorKind::NoEmbeddingModel {
            asked: asked.to_owned(),
            known: embedding().map(|model| Arc::clone(&model.name)).collect(),
        })?;
        Ok(Addressed { pinned: Some(Arc::clone(&pinned.name)), ..addressed })
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
        router: &LoadedRouter,
        text: &TextVector,
        features: &Features,
        place: Option<&Place>,
        known: &Known,
    ) -> Vec<Candidate> {
        let candidate = |(at, model): (usize, &Model)| {
            let p = router.adequacy.predict_named(text, &model.name, router.ability(at));
            let cached = place.map_or(0, |place| known.cached_tokens(&model.name, place));
            model.candidate(features, p, cached, &self.meter)
        };
        self.models.iter().enumerate().map(candidate).collect()
    }
}

/// The policy's rule with what the request overrides and what its conversation has brought along.
fn rule(
    request: &Request,
    features: &Features,
    addressed: &Addressed,
    overrides: &PolicyOverrides,
    known: &Known,
) -> Result<Rule, ServeError> {
    let mut rule = addressed.policy.rule_with(features.task, overrides)?;
    if addressed.pinned.is_some() {
        rule.pinned.clone_from(&addressed.pinned);
        rule.pinned_by_policy = false;
    }
    rule.local_only |= known.local_only;
    if known.floor > 0.0 {
        rule.floor = rule.floor.max(known.floor);
        // After a failed answer nothing is tried that may fail again.
        rule.cascade = None;
    }
    rule.stay = known.last.as_ref().map(|last| Stay {
        model: Arc::clone(&last.model),
        tool_loop: waits_for_tool(&request.messages()),
    });
    let share = addressed.policy.config.explore;
    if share > 0.0 {
        rule.explore = Some(Explore { share, draw: draw() });
    }
    Ok(rule)
}

/// `RouteLLM` asks its strong model where that is needed with a probability of at least the threshold; so does a floor of
/// one less it.
fn floor_of_threshold(asked: &str) -> Option<f64> {
    let (_, threshold) = asked.strip_prefix("router-")?.rsplit_once('-')?;
    let threshold: f64 = threshold.parse().ok()?;
    (0.0..=1.0).contains(&threshold).then_some(1.0 - threshold)
}

/// Uniform from 0 to below 1: the standard library's hash keys are random, and others each time.
fn draw() -> f64 {
    let random = RandomState::new().hash_one(0_u8);
    // The 53 bits that a float holds exactly.
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_becomes_a_floor() {
        assert!((floor_of_threshold("router-mf-0.7").unwrap() - 0.3).abs() < 1e-9);
        assert_eq!(floor_of_threshold("router-bert-1"), Some(0.0));
        for other in ["router-mf", "router-mf-2", "router-mf-x", "gpt-0.5", "router-0.5"] {
            assert_eq!(floor_of_threshold(other), None, "{other}");
        }
    }

    #[test]
    fn draws_are_uniform_over_the_unit_interval() {
        let draws: Vec<f64> = (0..2000).map(|_| draw()).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        let mean = draws.iter().sum::<f64>() / 2000.0;
        assert!((mean - 0.5).abs() < 0.05, "{mean}");
    }
}
