//! Trained routers: loads them from their folders and gives each configured model an ability.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::routing::adequacy::Predictions;
use crate::routing::drift::{Drift, Reference, ReferenceError};
use crate::routing::text::TextVector;
use crate::routing::{AdequacyError, AdequacyModel, Confidence, ConfidenceError};

/// Origin of a model's ability.
#[derive(Clone, Debug)]
pub struct AbilitySource {
    /// The operator's figure.
    pub configured: Option<f64>,
    /// Name under which the training data may know it.
    pub known_as: String,
    /// Used if neither is known.
    pub guess: f64,
}

impl AbilitySource {
    /// On the router's logit scale.
    pub fn ability(&self, adequacy: &AdequacyModel) -> f64 {
        self.configured.or_else(|| adequacy.ability_of(&self.known_as)).unwrap_or(self.guess)
    }
}

/// One router, ready to predict.
pub struct LoadedRouter {
    pub adequacy: AdequacyModel,
    /// Weights of the first tokens of a local answer.
    pub confidence: Confidence,
    /// By model name.
    abilities: HashMap<Arc<str>, f64>,
    /// Distance of requests from the training data; `None` where the router does not describe that.
    pub drift: Option<Drift>,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadRouterError {
    #[error("cannot load the router: {0}")]
    Adequacy(#[from] AdequacyError),
    #[error("cannot load the router: {0}")]
    Confidence(#[from] ConfidenceError),
    #[error("cannot load the router: {0}")]
    Reference(#[from] ReferenceError),
}

impl LoadedRouter {
    /// The router in `dir`, or the built-in one.
    fn load(
        dir: Option<&Path>,
        sources: &HashMap<Arc<str>, AbilitySource>,
    ) -> Result<Self, LoadRouterError> {
        let (adequacy, confidence, reference) = if let Some(dir) = dir {
            (AdequacyModel::load(dir)?, Confidence::load(dir)?, Reference::load(dir)?)
        } else {
            let reference = Some(Reference::built_in()?);
            (AdequacyModel::built_in()?, Confidence::built_in()?, reference)
        };
        let ability = |(name, source): (&Arc<str>, &AbilitySource)| {
            (Arc::clone(name), source.ability(&adequacy))
        };
        let abilities = sources.iter().map(ability).collect();
        Ok(Self { adequacy, confidence, abilities, drift: reference.map(Drift::new) })
    }

    /// Adequacy of these models for a text, in their order, and of an average model; `None` for a
    /// model that the router was not loaded for.
    pub fn predict_all<'a>(
        &self,
        text: &TextVector,
        models: impl Iterator<Item = &'a str> + Clone,
    ) -> (Vec<Option<f64>>, f64) {
        let rated = models.clone().filter_map(|name| Some((name, self.ability(name)?)));
        let Predictions { p, average } = self.adequacy.predict_all(text, rated);
        let mut p = p.into_iter();
        (models.map(|name| self.ability(name).and_then(|_| p.next())).collect(), average)
    }

    /// Counts a request for which an average model has adequacy `p`.
    pub fn watch_drift(&self, p: f64) {
        if let Some(drift) = &self.drift {
            drift.observe(p);
        }
    }

    /// `None` if the router was not loaded for this model.
    fn ability(&self, model: &str) -> Option<f64> {
        self.abilities.get(model).copied()
    }
}

/// The router that decides, and one that is compared with it.
pub struct Routers {
    pub router: Arc<LoadedRouter>,
    pub shadow: Option<Arc<LoadedRouter>>,
}

/// Where routers are loaded from, at the start and at each reload.
#[derive(Debug)]
pub struct RouterHandle {
    router_dir: Option<PathBuf>,
    shadow_dir: Option<PathBuf>,
    /// By model name.
    abilities: HashMap<Arc<str>, AbilitySource>,
}

/// Result of a reload.
#[derive(Debug, Serialize)]
pub struct Reloaded {
    /// Folder of the router; absent for the built-in one.
    router: Option<PathBuf>,
    candidate: Option<PathBuf>,
}

impl RouterHandle {
    pub fn new(
        router_dir: Option<PathBuf>,
        shadow_dir: Option<PathBuf>,
        abilities: HashMap<Arc<str>, AbilitySource>,
    ) -> Self {
        Self { router_dir, shadow_dir, abilities }
    }

    /// Reads both. Blocks on files: not for the threads that serve.
    pub fn load(&self) -> Result<Routers, LoadRouterError> {
        let router = Arc::new(LoadedRouter::load(self.router_dir.as_deref(), &self.abilities)?);
        let shadow = self.shadow_dir.as_deref();
        let shadow =
            shadow.map(|dir| LoadedRouter::load(Some(dir), &self.abilities)).transpose()?;
        Ok(Routers { router, shadow: shadow.map(Arc::new) })
    }

    /// The folders, as a reload reports them.
    pub fn reloaded(&self) -> Reloaded {
        Reloaded { router: self.router_dir.clone(), candidate: self.shadow_dir.clone() }
    }
}
