//! Adequacy model: prediction from text, model names and abilities.
//!
//! `p = σ(easiness(text) + slope · ability)` for any model with an ability; a model that the
//! training data labels directly has heads of its own, weighted by how similar the text is to the
//! text they were trained on. Scores are sparse dot products. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::names;
use crate::routing::text::{FeatureSchema, TextVector};

/// A trained router.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdequacyModel {
    pub schema: FeatureSchema,
    /// Log-odds of an adequate answer by a model of ability 0, the average of the data.
    pub easiness: Head,
    /// Increase of the log-odds per unit of ability; above 0.
    pub slope: f64,
    /// Ability of each model in the data by canonical name, on the same scale.
    pub abilities: BTreeMap<String, f64>,
    /// Heads fitted to direct labels, oldest source first.
    pub labelled: Vec<Labelled>,
}

/// Heads of one source of direct labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Labelled {
    pub source: String,
    /// Log-odds that a text resembles those of this source.
    pub familiarity: Head,
    /// Log-odds of an adequate answer to such a text, by canonical name.
    pub heads: BTreeMap<String, Head>,
}

impl AdequacyModel {
    /// Difficulty of a text: the ability at which an adequate answer has probability 1/2.
    pub fn difficulty(&self, text: &TextVector) -> f64 {
        -self.easiness.score(text) / self.slope
    }

    /// Log-odds of an adequate answer by a model of this ability.
    pub fn log_odds(&self, text: &TextVector, ability: f64) -> f64 {
        self.easiness.score(text) + self.slope * ability
    }

    /// The same as a probability, 0 to 1.
    pub fn predict(&self, text: &TextVector, ability: f64) -> f64 {
        logistic(self.log_odds(text, ability))
    }

    /// The same for a model that the data may know by name: each of its own heads moves the
    /// log-odds from the value by ability towards its own, in proportion to how familiar the text
    /// is to the source; later sources take precedence over earlier ones.
    pub fn predict_named(&self, text: &TextVector, name: &str, ability: f64) -> f64 {
        let predictions = self.predict_all(text, [(name, ability)]);
        predictions.p.first().copied().unwrap_or_default()
    }

    /// The same for several models, each by name and ability, in their order. Scores that do not
    /// depend on the model are computed once.
    pub fn predict_all<'a>(
        &self,
        text: &TextVector,
        models: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Predictions {
        let mut heads = vec![&self.easiness];
        heads.extend(self.labelled.iter().map(|labelled| &labelled.familiarity));
        // For each model and source, the index in `heads` of the model's own head.
        let mut own = Vec::new();
        let mut abilities = Vec::new();
        for (name, ability) in models {
            abilities.push(ability);
            let name = names::canonical(name);
            own.extend(self.labelled.iter().map(|labelled| {
                let head = names::find_canonical(&labelled.heads, &name)?;
                heads.push(head);
                Some(heads.len() - 1)
            }));
        }
        let scores = score_all(&heads, text);
        let (easiness, familiar) = (scores[0], &scores[1..=self.labelled.len()]);
        let p = |(at, ability): (usize, &f64)| {
            let general = easiness + self.slope * ability;
            let own = &own[at * familiar.len()..][..familiar.len()];
            let log_odds = own.iter().zip(familiar).fold(general, |log_odds, (own, familiar)| {
                let toward = |own: usize| log_odds + logistic(*familiar) * (scores[own] - log_odds);
                own.map_or(log_odds, toward)
            });
            logistic(log_odds)
        };
        let p = abilities.iter().enumerate().map(p).collect();
        Predictions { p, average: logistic(easiness) }
    }

    /// The same for a model of the data; `None` if it is not one.
    pub fn predict_known(&self, text: &TextVector, name: &str) -> Option<f64> {
        self.ability_of(name).map(|ability| self.predict_named(text, name, ability))
    }

    /// Adds to a head a share of the general model's log-odds for the model of that name; no effect
    /// for an unknown name.
    pub fn add_log_odds(&self, head: &mut Head, name: &str, share: f64) {
        if let Some(ability) = self.ability_of(name) {
            #[expect(clippy::cast_possible_truncation, reason = "weights are served as f32")]
            let (share, log_odds) = (share as f32, (share * self.slope * ability) as f32);
            head.add(&self.easiness, share);
            head.intercept += log_odds;
        }
    }

    /// Ability of a model in the data. A name without a release date means the newest one known.
    pub fn ability_of(&self, name: &str) -> Option<f64> {
        names::find(&self.abilities, name).copied()
    }
}

/// Adequacies predicted for one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    /// Of the models given, in their order.
    pub p: Vec<f64>,
    /// Of a model of ability 0, the average one of the data: a function of the text alone.
    pub average: f64,
}

/// One linear score of a text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Head {
    pub intercept: f32,
    /// One weight per structural feature.
    pub structure: Vec<f32>,
    /// One weight per n-gram bucket.
    pub ngrams: Vec<f32>,
}

/// Heads scored in one pass: their sums are independent chains of additions that the processor
/// overlaps.
const HEADS_AT_ONCE: usize = 4;

fn score_all(heads: &[&Head], text: &TextVector) -> Vec<f64> {
    let mut scores = Vec::with_capacity(heads.len());
    for group in heads.chunks(HEADS_AT_ONCE) {
        let padded = std::array::from_fn(|at| *group.get(at).unwrap_or(&group[0]));
        scores.extend(&score_group::<HEADS_AT_ONCE>(padded, text)[..group.len()]);
    }
    scores
}

/// The score of each head. Sums run in the order of the buckets, so a score does not depend on its
/// group.
fn score_group<const N: usize>(heads: [&Head; N], text: &TextVector) -> [f64; N] {
    let mut ngrams = [0.0_f32; N];
    for &(bucket, value) in &text.ngrams {
        for (sum, head) in ngrams.iter_mut().zip(heads) {
            // A verified model covers every bucket; `get` keeps an invalid one from panicking.
            *sum += head.ngrams.get(usize::from(bucket)).copied().unwrap_or(0.0) * value;
        }
    }
    std::array::from_fn(|at| {
        let head = heads[at];
        let structure: f32 = head.structure.iter().zip(text.structure).map(|(w, x)| w * x).sum();
        f64::from(head.intercept + ngrams[at] + structure)
    })
}

impl Head {
    pub fn score(&self, text: &TextVector) -> f64 {
        score_group([self], text)[0]
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
    fn the_built_in_router_orders_texts_by_difficulty_and_models_by_ability() {
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
    fn a_models_own_head_counts_as_far_as_the_text_is_familiar() {
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
