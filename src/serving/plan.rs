//! Planning of a request: applies the policy, predicts each model's answer, and decides their
//! order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::{ServeError, ServeErrorKind};
use super::gateway::Router;
use super::models::model::Model;
use super::options::RequestOptions;
use super::snapshot::Snapshot;
use crate::openai::Request;
use crate::routing::features::waits_for_tool;
use crate::routing::session::{Fingerprint, SessionState};
use crate::routing::text::TextVector;
use crate::routing::{
    Affinity, Candidate, Decision, Explore, Features, Policy, PolicyOverrides, Rule, SessionId,
    decide,
};
use crate::traffic::Shadow;

/// The model name that lets the router choose.
pub const AUTO: &str = "auto";

/// A decision and its inputs.
pub struct Plan {
    pub policy: Arc<Policy>,
    pub rule: Rule,
    pub overrides: PolicyOverrides,
    pub features: Features,
    pub decision: Decision,
    /// Its reason as a sentence.
    pub reason: Arc<str>,
    /// Hashes by which the request's conversation is found; `None` if nothing identifies one.
    pub fingerprint: Option<Fingerprint>,
    /// The conversation; `None` at its first turn until execution begins.
    pub session: Option<SessionId>,
    /// The models, policies and routers that decided; held to the end of the request.
    pub snapshot: Arc<Snapshot>,
    /// The chosen model, or any if none was.
    pub first: Arc<Model>,
    /// Decision of the shadow router.
    pub shadow: Option<Shadow>,
    /// Duration of the planning.
    pub took: Duration,
}

/// Meaning of the request's model name.
struct Addressed {
    policy: Arc<Policy>,
    pinned: Option<Arc<str>>,
    floor: Option<f64>,
}

/// The decision of the same rule among the same candidates, had another router predicted their
/// adequacy.
fn shadow(features: &Features, candidates: &[Candidate], rule: &Rule, p: &[Option<f64>]) -> Shadow {
    let mut others = candidates.to_vec();
    // A model that the other router was not loaded for keeps its prediction.
    for (one, p) in others.iter_mut().zip(p) {
        one.p = p.unwrap_or(one.p);
    }
    let decision = decide(features, &others, rule);
    Shadow {
        model: decision.chosen().map(|chosen| Arc::clone(&chosen.model)),
        p: others.into_iter().map(|one| (one.model, one.p)).collect(),
    }
}

impl Router {
    /// Decides by the present snapshot without running anything and without remembering anything.
    pub fn plan(&self, request: &Request, options: &RequestOptions) -> Result<Plan, ServeError> {
        let started = Instant::now();
        let snapshot = self.snapshot();
        let addressed = match request {
            Request::Embedding(request) => snapshot.address_embedding(&request.model)?,
            _ => snapshot.address(snapshot.asked(request, options))?,
        };
        let features = Features::of(request);
        let fingerprint = self.conversations.fingerprint(request, options);
        let known =
            fingerprint.as_ref().map(|known| self.conversations.known(known)).unwrap_or_default();
        let overrides = PolicyOverrides {
            floor: options.overrides.floor.or(addressed.floor),
            ..options.overrides.clone()
        };
        let mut rule = rule(request, &features, &addressed, &overrides, &known)?;
        rule.own_network_is_local = snapshot.own_network_is_local;
        let text = TextVector::of_messages(&request.messages());
        let names = snapshot.models.values().map(|model| &*model.name);
        let (p, average_p) = snapshot.router.predict_all(&text, names.clone());
        let mut candidates = self.candidates(&snapshot, &p, &features, &rule, |model| {
            fingerprint.as_ref().map_or(0, |own| known.cached_tokens(model, own))
        })?;
        let mut decision = decide(&features, &candidates, &rule);
        if decision.chosen().is_none() {
            // Leaving turns out is the last resort: only when no model can take the whole
            // conversation.
            snapshot.lift_context_limits(&mut candidates);
            decision = decide(&features, &candidates, &rule);
        }
        // Routers are trained on prompts to choose a model for, not on those for a named model.
        if rule.pinned.is_none() {
            snapshot.router.watch_drift(average_p);
        }
        let shadow = snapshot.shadow.as_ref().map(|other| {
            let (p, average_p) = other.predict_all(&text, names);
            if rule.pinned.is_none() {
                other.watch_drift(average_p);
            }
            shadow(&features, &candidates, &rule, &p)
        });
        let chosen = decision.chosen().and_then(|chosen| snapshot.models.get(&chosen.model));
        let first = chosen.or(snapshot.models.values().next()).map(Arc::clone);
        let first = first.ok_or_else(|| ServeErrorKind::no_candidate(&[], |_| None))?;
        Ok(Plan {
            policy: addressed.policy,
            rule,
            overrides,
            features,
            reason: decision.reason.to_string().into(),
            decision,
            fingerprint,
            session: known.id,
            snapshot,
            first,
            shadow,
            took: started.elapsed(),
        })
    }

    fn candidates(
        &self,
        snapshot: &Snapshot,
        p: &[Option<f64>],
        features: &Features,
        rule: &Rule,
        cached_tokens: impl Fn(&str) -> u64,
    ) -> Result<Vec<Candidate>, ServeError> {
        let candidate = |(model, p): (&Arc<Model>, &Option<f64>)| {
            let p = p.ok_or_else(|| unrated(model))?;
            let cached = cached_tokens(&model.name);
            Ok(model.candidate(features, p, cached, rule.reach(), &self.meter))
        };
        snapshot.models.values().zip(p).map(candidate).collect()
    }
}

/// The fault of a snapshot whose router does not know one of its models.
fn unrated(model: &Model) -> ServeError {
    tracing::error!(model.name = %model.name, "the router has no ability for a configured model");
    ServeErrorKind::Internal.into()
}

impl Snapshot {
    /// The name to go by: that of the request's class, unless the request names a model itself.
    fn asked<'a>(&'a self, request: &'a Request, options: &RequestOptions) -> &'a str {
        let named = request.model();
        let class = options.request_class.as_ref().filter(|_| !self.models.contains_key(named));
        class.and_then(|class| self.request_classes.meaning(class)).unwrap_or(named)
    }

    /// `auto` takes the default policy, `auto/<policy>` a named one, a model's own name pins it,
    /// and RouteLLM's `router-<name>-<threshold>` sets the floor. Other names are aliases.
    fn address(&self, asked: &str) -> Result<Addressed, ServeError> {
        if self.models.contains_key(asked) {
            return self.address_own(asked);
        }
        self.address_own(self.aliases.meaning(asked).unwrap_or(asked))
    }

    fn address_own(&self, asked: &str) -> Result<Addressed, ServeError> {
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
        let (pinned, floor) = match self.models.get(asked) {
            Some(model) => (Some(Arc::clone(&model.name)), None),
            None => (None, Some(floor_of_threshold(asked).ok_or_else(unknown)?)),
        };
        Ok(Addressed { policy, pinned, floor })
    }

    /// Vectors of different models cannot be compared, so embeddings have neither a choice nor a
    /// fallback: the request is pinned to the model it names, or to the only one.
    fn address_embedding(&self, asked: &str) -> Result<Addressed, ServeError> {
        let addressed = self.address(asked)?;
        let embedding = || self.models.values().filter(|model| model.capabilities.embeddings);
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
        for (model, candidate) in self.models.values().zip(candidates) {
            if model.drops_oldest_turns {
                candidate.context_tokens = None;
            }
        }
    }
}

/// The policy's rule with the request's overrides and the state of its conversation.
fn rule(
    request: &Request,
    features: &Features,
    addressed: &Addressed,
    overrides: &PolicyOverrides,
    known: &SessionState,
) -> Result<Rule, ServeError> {
    let mut rule = addressed.policy.rule_with(features.task, overrides)?;
    if addressed.pinned.is_some() {
        rule.pinned.clone_from(&addressed.pinned);
        rule.pinned_by_policy = false;
    }
    rule.local_only |= known.local_only;
    if known.floor > 0.0 {
        rule.floor = rule.floor.max(known.floor);
        // After a failed answer no cascade may show another weak one.
        rule.cascade = None;
    }
    rule.affinity = known.last.as_ref().map(|last| Affinity {
        model: Arc::clone(&last.model),
        tool_loop: waits_for_tool(&request.messages()),
    });
    let share = addressed.policy.config.explore;
    if share > 0.0 {
        rule.explore = Some(Explore { share, sample: fastrand::f64() });
    }
    Ok(rule)
}

/// `RouteLLM` asks its strong model where that is needed with a probability of at least the
/// threshold; so does a floor of one less it.
fn floor_of_threshold(asked: &str) -> Option<f64> {
    let (_, threshold) = asked.strip_prefix("router-")?.rsplit_once('-')?;
    let threshold: f64 = threshold.parse().ok()?;
    (0.0..=1.0).contains(&threshold).then_some(1.0 - threshold)
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
}
