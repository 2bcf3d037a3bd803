//! Confidence: the probability that an answer is good enough given its first tokens, as a logistic
//! score of their signals with weights per model.
//!
//! Scores, reads and writes; `crate::train::cascade` fits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::adequacy::logistic;
use super::signals::Signals;
use crate::files;

/// Name of the fitted weights within a router's folder.
pub const CONFIDENCE_FILE: &str = "cascade.json";
/// Raised when a signal changes its meaning.
const CONFIDENCE_VERSION: u32 = 1;
/// Fitted to `SmolLM2` on the project's own questions; see `router-models/README.md`.
static BUILT_IN: &str = include_str!("../../router-models/default/cascade.json");
/// Key of the weights for models that were never fitted.
const ANY_MODEL: &str = "*";

/// Log-odds of a good enough answer, linear in the signals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    pub intercept: f64,
    /// Weight of the log-odds of the adequacy predicted from the prompt.
    pub adequacy: f64,
    pub mean_logprob: f64,
    pub min_logprob: f64,
    pub mean_entropy: f64,
    pub refusal: f64,
    pub repetition: f64,
    pub complete: f64,
}

/// Number of weights, without the intercept.
pub const SIGNALS: usize = 7;

impl Weights {
    pub fn new(intercept: f64, weights: [f64; SIGNALS]) -> Self {
        let [adequacy, mean_logprob, min_logprob, mean_entropy, refusal, repetition, complete] =
            weights;
        Self {
            intercept,
            adequacy,
            mean_logprob,
            min_logprob,
            mean_entropy,
            refusal,
            repetition,
            complete,
        }
    }

    fn values(&self) -> [f64; SIGNALS] {
        [
            self.adequacy,
            self.mean_logprob,
            self.min_logprob,
            self.mean_entropy,
            self.refusal,
            self.repetition,
            self.complete,
        ]
    }

    /// Probability, 0 to 1, that an answer with these signals is good enough, given the adequacy
    /// `p` predicted from its prompt.
    pub fn score(&self, p: f64, signals: &Signals) -> f64 {
        let sum: f64 = self.values().iter().zip(features(p, signals)).map(|(w, x)| w * x).sum();
        logistic(self.intercept + sum)
    }
}

/// Inputs of the score, in the order of the weights.
pub fn features(p: f64, signals: &Signals) -> [f64; SIGNALS] {
    // Keeps the log-odds finite: a prediction of 0 or 1 is not certainty.
    let p = p.clamp(0.001, 0.999);
    [
        (p / (1.0 - p)).ln(),
        signals.mean_logprob,
        // Below this a token is practically impossible, whatever the model.
        signals.min_logprob.max(-20.0),
        signals.mean_entropy,
        f64::from(u8::from(signals.refusal)),
        signals.repetition,
        f64::from(u8::from(signals.complete)),
    ]
}

/// The fitted weights by model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confidence {
    version: u32,
    /// `*` for models that were never fitted.
    models: BTreeMap<String, Weights>,
}

/// Why fitted weights cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfidenceError {
    #[error("cannot read {}: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {source}", .path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{}: {problem}", .path.display())]
    Unusable { path: PathBuf, problem: &'static str },
}

impl Confidence {
    pub fn new(models: BTreeMap<String, Weights>) -> Self {
        Self { version: CONFIDENCE_VERSION, models }
    }

    /// The weights compiled into the binary.
    pub fn built_in() -> Result<Self, ConfidenceError> {
        Self::parse(BUILT_IN, Path::new(CONFIDENCE_FILE))
    }

    /// The weights in a router's folder, or the built-in ones if it has none.
    pub fn load(dir: &Path) -> Result<Self, ConfidenceError> {
        let path = dir.join(CONFIDENCE_FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text, &path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::built_in(),
            Err(source) => Err(ConfidenceError::Read { path, source }),
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfidenceError> {
        let path = || path.to_owned();
        let read: Self = serde_json::from_str(text)
            .map_err(|source| ConfidenceError::Json { path: path(), source })?;
        let unusable = |problem| Err(ConfidenceError::Unusable { path: path(), problem });
        let finite = |weights: &Weights| {
            weights.intercept.is_finite() && weights.values().iter().all(|one| one.is_finite())
        };
        if read.version != CONFIDENCE_VERSION {
            return unusable("it is of another version: fit it again");
        }
        if !read.models.values().all(finite) {
            return unusable("a weight is not a finite number");
        }
        if !read.models.contains_key(ANY_MODEL) {
            return unusable("it has no weights for `*`, any other model");
        }
        Ok(read)
    }

    pub fn weights(&self, model: &str) -> Weights {
        let found = self.models.get(model).or_else(|| self.models.get(ANY_MODEL));
        found.copied().unwrap_or_default()
    }

    /// Writes `dir/cascade.json`.
    pub fn save(&self, dir: &Path) -> std::io::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        files::replace(&dir.join(CONFIDENCE_FILE), text)
    }

    /// The same with other weights for some models.
    #[must_use]
    pub fn with(mut self, fitted: BTreeMap<String, Weights>) -> Self {
        self.models.extend(fitted);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::signals::TokenSight;

    #[test]
    fn the_built_in_weights_prefer_confident_tokens_and_extreme_predictions_stay_finite() {
        let weights = Confidence::built_in().unwrap().weights("no-such-model");
        let of = |logprob, entropy| {
            let signals = Signals::of(&[TokenSight { logprob, entropy }; 8], "Paris.", true);
            weights.score(0.5, &signals.unwrap())
        };
        assert!(of(-0.05, 0.1) > of(-2.0, 3.0) + 0.2, "{} {}", of(-0.05, 0.1), of(-2.0, 3.0));
        assert!(features(0.0, &Signals::default()).iter().all(|x| x.is_finite()));
    }

    #[test]
    fn the_weights_of_a_router_are_validated() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Confidence::load(dir.path()).unwrap(), Confidence::built_in().unwrap());
        for (text, expected) in [
            ("{", "EOF"),
            (r#"{"version":9,"models":{}}"#, "another version"),
            (r#"{"version":1,"models":{}}"#, "any other model"),
            (r#"{"version":1,"models":{"*":{"intercept":1e999}}}"#, "number out of range"),
        ] {
            std::fs::write(dir.path().join(CONFIDENCE_FILE), text).unwrap();
            let error = Confidence::load(dir.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
