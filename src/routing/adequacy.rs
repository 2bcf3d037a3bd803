//! How likely a model's answer is good enough: a trained, verified, read-only model of text difficulty.
//!
//! `p = σ(easiness(text) + slope · ability)` for any model with an ability number; a model that the training data labels
//! directly has a head of its own, which counts as far as the text is like the text it was learnt from. Scores are
//! sparse dot products. This file predicts; `file` reads and writes; nothing here trains.

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
    /// Log-odds of an adequate answer by a model of ability 0, the average one of the data.
    pub easiness: Head,
    /// How sharply the log-odds rise with ability; above 0.
    pub slope: f64,
    /// Ability of each model in the data by canonical name, same scale.
    pub abilities: BTreeMap<String, f64>,
    /// What direct labels taught, oldest source first.
    pub labelled: Vec<Labelled>,
}

/// One source of direct labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Labelled {
    pub source: String,
    /// Log-odds that a text is of the kind this source asked.
    pub familiarity: Head,
    /// Log-odds of an adequate answer to such a text, by canonical name.
    pub heads: BTreeMap<String, Head>,
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
        -self.easiness.score(text) / self.slope
    }

    /// Log-odds that a model of this ability answers well enough.
    pub fn log_odds(&self, text: &TextVector, ability: f64) -> f64 {
        self.easiness.score(text) + self.slope * ability
    }

    /// The same as a probability, 0 to 1.
    pub fn predict(&self, text: &TextVector, ability: f64) -> f64 {
        logistic(self.log_odds(text, ability))
    }

    /// The same for a model the data may know by name: where it has heads of its own, log-odds move from what its
    /// ability says to what each head says, as far as the text is familiar; a later source outweighs an earlier one.
    pub fn predict_named(&self, text: &TextVector, name: &str, ability: f64) -> f64 {
        let general = self.log_odds(text, ability);
        let toward = |log_odds: f64, labelled: &Labelled| match names::find(&labelled.heads, name) {
            Some(head) => {
                let familiar = logistic(labelled.familiarity.score(text));
                log_odds + familiar * (head.score(text) - log_odds)
            }
            None => log_odds,
        };
        logistic(self.labelled.iter().fold(general, toward))
    }

    /// The same for a model of the data; none if it is not one.
    pub fn predict_known(&self, text: &TextVector, name: &str) -> Option<f64> {
        self.ability_of(name).map(|ability| self.predict_named(text, name, ability))
    }

    /// Adds to a head a share of the log-odds that the general model gives the model of that name; nothing if it has none.
    pub fn add_log_odds(&self, head: &mut Head, name: &str, share: f64) {
        if let Some(ability) = self.ability_of(name) {
            #[expect(clippy::cast_possible_truncation, reason = "weights are served as f32")]
            let (share, log_odds) = (share as f32, (share * self.slope * ability) as f32);
            head.add(&self.easiness, share);
            head.intercept += log_odds;
        }
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
    fn a_head_of_its_own_counts_as_far_as_the_text_is_familiar() {
        let model = AdequacyModel::built_in().unwrap();
        let name = "mixtral-8x7b-instruct-v0.1";
        let ability = model.ability_of(name).unwrap();
        let moved = |text: &str| {
            let text = TextVector::of_text(text);
            (model.predict_known(&text, name).unwrap() - model.predict(&text, ability)).abs()
        };
        let exam = "Who wrote Faust?\nA. Goethe\nB. Kant\nC. Hegel\nD. Heine\nAnswer:";
        let letter = "Write a short letter of thanks to my aunt for the blue scarf.";
        assert!(moved(exam) > 10.0 * moved(letter), "{} {}", moved(exam), moved(letter));
        assert_eq!(model.predict_known(&TextVector::of_text(exam), "no-such-model"), None);
    }
}
