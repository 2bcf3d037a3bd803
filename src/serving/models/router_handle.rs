//! What the gateway has learnt and can exchange while it serves: the router, and a candidate that only watches.
//!
//! Whoever decides takes one `Arc` and decides by it to the end. A router that cannot be used is refused, and the old one
//! goes on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;

use crate::routing::drift::{AVERAGE_ABILITY, Drift, Reference, ReferenceError};
use crate::routing::text::TextVector;
use crate::routing::{AdequacyError, AdequacyModel, Confidence, ConfidenceError};

/// Where a model's ability comes from.
#[derive(Clone, Debug)]
pub struct AbilitySource {
    /// The operator's word.
    pub configured: Option<f64>,
    /// Under which name the training data may know it.
    pub known_as: String,
    /// If nobody knows.
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
    /// What the first tokens of a local answer are worth.
    pub confidence: Confidence,
    /// Of the gateway's models, in their order.
    abilities: Vec<f64>,
    /// How far requests are from those it was trained on; none where the router does not say what those were.
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
    /// The router in `dir`, or the one built in.
    pub fn load(dir: Option<&Path>, ratings: &[AbilitySource]) -> Result<Self, LoadRouterError> {
        let (adequacy, confidence, reference) = if let Some(dir) = dir {
            (AdequacyModel::load(dir)?, Confidence::load(dir)?, Reference::load(dir)?)
        } else {
            let reference = Some(Reference::built_in()?);
            (AdequacyModel::built_in()?, Confidence::built_in()?, reference)
        };
        let abilities = ratings.iter().map(|rating| rating.ability(&adequacy)).collect();
        Ok(Self { adequacy, confidence, abilities, drift: reference.map(Drift::new) })
    }

    /// Takes in the prompt of a request.
    pub fn watch_drift(&self, text: &TextVector) {
        if let Some(drift) = &self.drift {
            drift.observe(self.adequacy.predict(text, AVERAGE_ABILITY));
        }
    }

    /// Of the model at this place.
    pub fn ability(&self, place: usize) -> f64 {
        // The ratings are those of the gateway's models.
        self.abilities.get(place).copied().unwrap_or_default()
    }
}

/// The router that serves, and the one that watches.
pub struct RouterHandle {
    router_dir: Option<PathBuf>,
    candidate_dir: Option<PathBuf>,
    ratings: Vec<AbilitySource>,
    present: RwLock<Present>,
}

#[derive(Clone)]
struct Present {
    router: Arc<LoadedRouter>,
    candidate: Option<Arc<LoadedRouter>>,
}

/// What a reload did.
#[derive(Debug, Serialize)]
pub struct Reloaded {
    /// Where the router lies; absent for the one built in.
    router: Option<PathBuf>,
    candidate: Option<PathBuf>,
}

impl RouterHandle {
    /// `ratings` are those of the gateway's models, in their order.
    pub fn load(
        router_dir: Option<PathBuf>,
        candidate_dir: Option<PathBuf>,
        ratings: Vec<AbilitySource>,
    ) -> Result<Self, LoadRouterError> {
        let present = Present::load(router_dir.as_deref(), candidate_dir.as_deref(), &ratings)?;
        Ok(Self { router_dir, candidate_dir, ratings, present: RwLock::new(present) })
    }

    pub fn router(&self) -> Arc<LoadedRouter> {
        Arc::clone(&self.present.read().unwrap_or_else(PoisonError::into_inner).router)
    }

    /// Decides beside the router and is never obeyed.
    pub fn candidate(&self) -> Option<Arc<LoadedRouter>> {
        self.present.read().unwrap_or_else(PoisonError::into_inner).candidate.clone()
    }

    /// Reads both again, from where they were read first. On an error the present ones stay. Reads files: not for the
    /// threads that serve.
    pub fn reload(&self) -> Result<Reloaded, LoadRouterError> {
        let (router, candidate) = (self.router_dir.clone(), self.candidate_dir.clone());
        let fresh = Present::load(router.as_deref(), candidate.as_deref(), &self.ratings)?;
        *self.present.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(Reloaded { router, candidate })
    }
}

impl Present {
    fn load(
        router: Option<&Path>,
        candidate: Option<&Path>,
        ratings: &[AbilitySource],
    ) -> Result<Self, LoadRouterError> {
        let router = Arc::new(LoadedRouter::load(router, ratings)?);
        let candidate = candidate.map(|dir| LoadedRouter::load(Some(dir), ratings)).transpose()?;
        Ok(Self { router, candidate: candidate.map(Arc::new) })
    }
}
