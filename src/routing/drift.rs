//! Drift: how far recent requests are from those that the router was trained on, as one number.
//!
//! The population stability index over the deciles of the predicted adequacy of an average model
//! (ability 0), which is a function of the prompt alone: PSI = Σ (aᵢ − eᵢ) · ln(aᵢ / eᵢ), where eᵢ
//! = 1/10 is the share of training prompts in decile i and aᵢ the share of recent requests. By the
//! usual rule of thumb (Siddiqi, Credit Risk Scorecards, 2006) a value below 0.1 means no change
//! and one above 0.25 calls for a new fit. No clock: recent means about the last thousand requests.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::files;

/// Name of the reference within a router's folder.
pub const REFERENCE_FILE: &str = "reference.json";
/// Raised when the meaning of a field changes.
const REFERENCE_VERSION: u32 = 1;
static BUILT_IN: &str = include_str!("../../router-models/default/reference.json");

/// Ability of the model whose predicted adequacy is monitored: the average of the training data.
pub const AVERAGE_ABILITY: f64 = 0.0;

const DECILES: usize = 10;
/// Decay of a request's weight with each later one: about the last thousand count.
const FORGETTING: f64 = 0.999;
/// Requests before the index is reported: with fewer it is dominated by chance.
const REQUESTS_MIN: f64 = 100.0;
/// Least share of a decile: an empty one would make the index infinite.
const SHARE_MIN: f64 = 1e-4;

/// Decile boundaries of the training prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    version: u32,
    /// Adequacies of an average model that divide the training prompts into tenths; ascending.
    p_deciles: [f64; DECILES - 1],
}

/// Why a reference cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    #[error("cannot read {}: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {source}", .path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{}: its deciles are not ascending within 0 to 1, or its version is unsupported", .0.display())]
    Unusable(PathBuf),
}

impl Reference {
    /// From the adequacies predicted for the training prompts; `None` without any.
    pub fn of(mut p: Vec<f64>) -> Option<Self> {
        p.sort_by(f64::total_cmp);
        let at = |decile: usize| p.get(p.len() * decile / DECILES).copied();
        let mut p_deciles = [0.0; DECILES - 1];
        for (place, edge) in p_deciles.iter_mut().enumerate() {
            *edge = at(place + 1)?;
        }
        Some(Self { version: REFERENCE_VERSION, p_deciles })
    }

    pub fn built_in() -> Result<Self, ReferenceError> {
        Self::parse(BUILT_IN, Path::new(REFERENCE_FILE))
    }

    /// The reference in a router's folder; `None` if it has none, which disables drift.
    pub fn load(dir: &Path) -> Result<Option<Self>, ReferenceError> {
        let path = dir.join(REFERENCE_FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text, &path).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ReferenceError::Read { path, source }),
        }
    }

    /// Writes `dir/reference.json`.
    pub fn save(&self, dir: &Path) -> std::io::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        files::replace(&dir.join(REFERENCE_FILE), text)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ReferenceError> {
        let read: Self = serde_json::from_str(text)
            .map_err(|source| ReferenceError::Json { path: path.to_owned(), source })?;
        let edges = &read.p_deciles;
        let sound = edges.is_sorted() && edges.iter().all(|edge| (0.0..=1.0).contains(edge));
        if sound && read.version == REFERENCE_VERSION {
            Ok(read)
        } else {
            Err(ReferenceError::Unusable(path.to_owned()))
        }
    }
}

/// Recent requests against a reference.
#[derive(Debug)]
pub struct Drift {
    reference: Reference,
    /// Decayed number of requests in each decile.
    counts: Mutex<[f64; DECILES]>,
}

impl Drift {
    pub fn new(reference: Reference) -> Self {
        Self { reference, counts: Mutex::default() }
    }

    /// Counts a request for which an average model has adequacy `p`.
    pub fn observe(&self, p: f64) {
        let decile = self.reference.p_deciles.partition_point(|edge| *edge <= p);
        let mut counts = self.counts.lock();
        counts.iter_mut().for_each(|count| *count *= FORGETTING);
        counts[decile] += 1.0;
    }

    /// The population stability index, at least 0; `None` before enough requests.
    pub fn psi(&self) -> Option<f64> {
        let counts = *self.counts.lock();
        let all: f64 = counts.iter().sum();
        if all < REQUESTS_MIN * FORGETTING.powf(REQUESTS_MIN) {
            return None;
        }
        let expected = 1.0 / DECILES as f64;
        let part = |count: &f64| {
            let share = (count / all).max(SHARE_MIN);
            (share - expected) * (share / expected).ln()
        };
        Some(counts.iter().map(part).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> Reference {
        Reference::of((0..1000).map(|i| f64::from(i) / 1000.0).collect()).unwrap()
    }

    #[test]
    fn the_same_requests_do_not_drift_and_others_do() {
        let (same, others, few) =
            (Drift::new(reference()), Drift::new(reference()), Drift::new(reference()));
        for i in 0..3000 {
            same.observe(f64::from((i * 617) % 1000) / 1000.0);
            others.observe(f64::from((i * 617) % 1000) / 4000.0);
        }
        for _ in 0..50 {
            few.observe(0.5);
        }
        assert!(same.psi().unwrap() < 0.02, "{:?}", same.psi());
        assert!(others.psi().unwrap() > 0.25, "{:?}", others.psi());
        assert_eq!(few.psi(), None);
    }

    #[test]
    fn old_requests_are_forgotten() {
        let drift = Drift::new(reference());
        (0..1000).for_each(|_| drift.observe(0.05));
        let drifted = drift.psi().unwrap();
        (0..9000).for_each(|i| drift.observe(f64::from((i * 617) % 1000) / 1000.0));
        assert!(drift.psi().unwrap() < 0.05 && drifted > 1.0, "{drifted} {:?}", drift.psi());
    }

    #[test]
    fn a_reference_is_validated_and_may_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Reference::load(dir.path()).unwrap(), None);
        for text in [
            "{",
            r#"{"version":1,"p_deciles":[0.1]}"#,
            r#"{"version":1,"p_deciles":[0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.2]}"#,
            r#"{"version":2,"p_deciles":[0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9]}"#,
        ] {
            std::fs::write(dir.path().join(REFERENCE_FILE), text).unwrap();
            assert!(Reference::load(dir.path()).is_err(), "{text}");
        }
        assert_eq!(Reference::of(vec![]), None);
    }
}
