//! How likely a model's answer is good enough: a trained, verified, read-only model of text difficulty.
//!
//! `p = σ(a · (ability − difficulty(text)))` for any model with an ability number, and a head of its own for a model
//! the training data has direct labels of. Scores are sparse dot products. This file predicts; `file` reads and
//! writes; nothing here trains.

mod file;
pub mod names;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::text::{FeatureSchema, TextVector};
pub use file::{AdequacyError, MODEL_FILE};

/// The router that `wattgate train` made from the project's data; see its `card.md`.
static BUILT_IN: &[u8] = include_bytes!("../../router-models/default/model.bin");

/// A trained router.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdequacyModel {
    pub schema: FeatureSchema,
    /// `a`: how sharply adequacy rises with ability; above 0.
    pub slope: f64,
    /// Difficulty on the ability scale (logits; 0 = the average model of the data).
    pub difficulty: Head,
    /// Ability of each model in the data by canonical name, same scale.
    pub abilities: BTreeMap<String, f64>,
    /// Log-odds of an adequate answer, for models with direct labels, by canonical name.
    pub own_heads: BTreeMap<String, Head>,
}

impl AdequacyModel {
    /// The one compiled into the binary.
    pub fn built_in() -> Result<Self, AdequacyError> {
        file::decode(BUILT_IN)
    }

    /// Reads and verifies `dir/model.bin`.
    pub fn load(dir: &Path) -> Result<Self, AdequacyError> {
        file::load(dir)
    }

    /// Writes `dir/model.bin`, creating `dir`.
    pub fn save(&self, dir: &Path) -> Result<(), AdequacyError> {
        file::save(self, dir)
    }

    /// Difficulty of a text: the ability at which an adequate answer is as likely as not.
    pub fn difficulty(&self, text: &TextVector) -> f64 {
        self.difficulty.score(text)
    }

    /// Probability, 0 to 1, that a model of this ability answers well enough.
    pub fn predict(&self, text: &TextVector, ability: f64) -> f64 {
        logistic(self.slope * (ability - self.difficulty(text)))
    }

    /// The same for a model the data knows by name: from its own head if it has one, else from its ability.
    pub fn predict_known(&self, text: &TextVector, name: &str) -> Option<f64> {
        let own = names::find(&self.own_heads, name).map(|head| logistic(head.score(text)));
        own.or_else(|| self.ability_of(name).map(|ability| self.predict(text, ability)))
    }

    /// Ability of a model in the data. A name without its release date means the newest one known.
    pub fn ability_of(&self, name: &str) -> Option<f64> {
        names::find(&self.abilities, name).copied()
    }
}

/// One linear score of a text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Head {
    pub intercept: f32,
    /// One weight a structural feature.
    pub structure: Vec<f32>,
    /// One weight a bucket of n-grams.
    pub ngrams: Vec<f32>,
}

impl Head {
    pub fn score(&self, text: &TextVector) -> f64 {
        // A verified model covers every bucket; indexing by `get` keeps an impossible one from ending the process.
        let weight = |bucket: u16| self.ngrams.get(usize::from(bucket)).copied().unwrap_or(0.0);
        let ngrams: f32 = text.ngrams.iter().map(|&(bucket, value)| weight(bucket) * value).sum();
        let structure: f32 = self.structure.iter().zip(text.structure).map(|(w, x)| w * x).sum();
        f64::from(self.intercept + ngrams + structure)
    }

    /// Adds `weight` times another head.
    pub fn add(&mut self, other: &Self, weight: f32) {
        let add = |own: &mut [f32], other: &[f32]| {
            own.iter_mut().zip(other).for_each(|(own, other)| *own += weight * other);
        };
        self.intercept += weight * other.intercept;
        add(&mut self.structure, &other.structure);
        add(&mut self.ngrams, &other.ngrams);
    }
}

/// `σ(x) = 1 / (1 + e⁻ˣ)`.
pub fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adequacy_rises_with_ability_and_stays_a_probability() {
        let model = AdequacyModel::built_in().unwrap();
        for text in ["", "What is 2 + 2?", "Prove that \\(\\zeta(3)\\) is irrational."] {
            let text = TextVector::of_text(text);
            let p: Vec<f64> =
                [-4.0, -2.5, 0.0, 2.0, 5.0].map(|ability| model.predict(&text, ability)).to_vec();
            assert!(p.is_sorted() && p.iter().all(|p| (0.0..=1.0).contains(p)), "{p:?}");
            let even = model.predict(&text, model.difficulty(&text));
            assert!((even - 0.5).abs() < 1e-9);
        }
    }

    #[test]
    fn the_built_in_router_tells_easy_from_hard_and_small_from_large() {
        let model = AdequacyModel::built_in().unwrap();
        let easy = TextVector::of_text("What is the capital of France?");
        let hard = TextVector::of_text(
            "Let $f$ be a polynomial with integer coefficients such that $f(n)$ divides $n^{2023}-1$. Find all $f$.",
        );
        assert!(model.difficulty(&easy) < model.difficulty(&hard));
        let small = model.ability_of("Llama-2-7b-hf").unwrap();
        let large = model.ability_of("gpt-4o").unwrap();
        assert!(small < -1.0 && large > 1.0, "{small} {large}");
        assert_eq!(model.ability_of("no-such-model"), None);
    }

    #[test]
    fn a_model_with_labels_of_its_own_is_predicted_by_its_own_head() {
        let model = AdequacyModel::built_in().unwrap();
        let text = TextVector::of_text("Who wrote Faust?\nA. Goethe\nB. Kant\nAnswer:");
        let name = "mixtral-8x7b-instruct-v0.1";
        let own = model.predict_known(&text, name).unwrap();
        assert!((own - model.predict(&text, model.ability_of(name).unwrap())).abs() > 1e-6);
        assert_eq!(model.predict_known(&text, "no-such-model"), None);
    }
}
