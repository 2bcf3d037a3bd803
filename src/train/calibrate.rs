//! Puts text and abilities on one scale, and measures how true the probabilities are.
//!
//! `logit p = a · ability + structure of the text + n · what its n-grams foretell + c`, fitted on every outcome; the
//! n-grams' part is out of fold wherever it meets an outcome, so what is fitted here is what unseen text will get.
//! Structure belongs here and not to the n-gram fit: it carries what differs between kinds of task (number of options,
//! length, mathematics) from thousands of rows, where it calibrates other sources' prompts.

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2, ShapeBuilder};
use serde::Serialize;

use super::TrainError;
use super::ability::Abilities;
use super::fit::{ADEQUATE, DENSE, Dense, Examples, Standard, dense, folds, ridge_head};
use super::metrics::{Reliability, quantile, reliability};
use super::outcomes::Data;
use crate::routing::adequacy::{Head, logistic};

const FOLDS: usize = 5;
/// Light: eighteen weights from many thousand outcomes need little restraint, from twenty rows they need some.
const PENALTY: f64 = 1.0;

/// The fourth digit of the calibration error no longer changes after 20.
const ITERATIONS_MAX: u64 = 30;

/// Held-out quality of `σ(a · (ability − difficulty(text)))`.
#[derive(Clone, Debug, Serialize)]
pub struct Calibration {
    pub folds: usize,
    /// Rows the difficulty of text was learnt from.
    pub rows: usize,
    pub all: Reliability,
    /// Weakest, middle and strongest third of the outcomes by ability.
    pub by_ability: Vec<Band>,
}

/// Outcomes of models within a range of ability.
#[derive(Clone, Debug, Serialize)]
pub struct Band {
    pub ability_from: f64,
    pub ability_to: f64,
    pub reliability: Reliability,
}

pub(super) struct Scaled {
    pub(super) slope: f64,
    pub(super) difficulty: Head,
}

/// One outcome as the link sees it.
struct Cell {
    fold: usize,
    ability: f64,
    text: Dense,
    outcome: f64,
}

pub(super) fn fit(
    data: &Data,
    abilities: &Abilities,
    examples: &Examples,
    seed: u64,
    tell: &dyn Fn(&'static str, usize, usize),
) -> Result<(Scaled, Calibration), TrainError> {
    let mut cells = Vec::new();
    for (fold, (train, test)) in folds(data, examples, FOLDS, seed).iter().enumerate() {
        tell("learning difficulty", fold, FOLDS + 1);
        let ease = ridge_head(data, train);
        for &(row, _) in test {
            let text = dense(&data.rows[row].text, Some(&ease));
            let sound = abilities.sound(data, row);
            cells.extend(sound.map(|outcome| Cell {
                fold,
                ability: abilities.theta[outcome.model],
                text,
                outcome: outcome.score,
            }));
        }
    }
    tell("learning difficulty", FOLDS, FOLDS + 1);
    let ease = ridge_head(data, examples);
    let texts: Vec<Dense> = cells.iter().map(|cell| cell.text).collect();
    let standard = Standard::of(&texts, 1.0);
    tell("calibrating", 0, 1);
    let calibration = measure(&cells, &standard, examples.len())?;
    let link = Link::fit(cells.iter(), &standard)?;
    Ok((Scaled { slope: link.ability, difficulty: link.difficulty(&standard, &ease) }, calibration))
}

/// Each outcome is predicted by a link fitted without its fold.
fn measure(cells: &[Cell], standard: &Standard, rows: usize) -> Result<Calibration, TrainError> {
    let mut predicted: Vec<(f64, (f64, f64))> = Vec::with_capacity(cells.len());
    for fold in 0..FOLDS {
        let link = Link::fit(cells.iter().filter(|cell| cell.fold != fold), standard)?;
        let held_out = cells.iter().filter(|cell| cell.fold == fold);
        predicted
            .extend(held_out.map(|cell| (cell.ability, (link.p(cell, standard), cell.outcome))));
    }
    predicted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let abilities: Vec<f64> = predicted.iter().map(|(ability, _)| *ability).collect();
    let third = |k: f64| quantile(&abilities, k / 3.0);
    let band = |from: f64, to: f64| {
        let inside = predicted.iter().filter(|(ability, _)| (from..=to).contains(ability));
        let pairs: Vec<(f64, f64)> = inside.map(|(_, pair)| *pair).collect();
        Band { ability_from: from, ability_to: to, reliability: reliability(&pairs) }
    };
    let all: Vec<(f64, f64)> = predicted.iter().map(|(_, pair)| *pair).collect();
    Ok(Calibration {
        folds: FOLDS,
        rows,
        all: reliability(&all),
        by_ability: (0..3u8).map(|k| band(third(k.into()), third((k + 1).into()))).collect(),
    })
}

/// Weights of ability and of the standardised text, on the log-odds.
struct Link {
    ability: f64,
    text: [f64; DENSE],
    intercept: f64,
}

impl Link {
    fn fit<'a>(
        cells: impl Iterator<Item = &'a Cell>,
        standard: &Standard,
    ) -> Result<Self, TrainError> {
        let cells: Vec<&Cell> = cells.collect();
        let mut records = Array2::<f64>::zeros((cells.len(), DENSE + 1).f());
        for (row, cell) in cells.iter().enumerate() {
            for (at, value) in standard.apply(&cell.text).into_iter().enumerate() {
                records[(row, at)] = value.into();
            }
            records[(row, DENSE)] = cell.ability;
        }
        let labels: Array1<bool> = cells.iter().map(|cell| cell.outcome >= ADEQUATE).collect();
        let fitted = LogisticRegression::default()
            .alpha(PENALTY)
            .max_iterations(ITERATIONS_MAX)
            .fit(&DatasetBase::new(records, labels))?;
        let sign = if fitted.labels().pos.class { 1.0 } else { -1.0 };
        let ability = fitted.params()[DENSE] * sign;
        if ability > 0.0 {
            let text = std::array::from_fn(|at| fitted.params()[at] * sign);
            Ok(Self { ability, text, intercept: fitted.intercept() * sign })
        } else {
            Err(TrainError::Contradictory(ability))
        }
    }

    fn p(&self, cell: &Cell, standard: &Standard) -> f64 {
        let text = standard.apply(&cell.text);
        let text: f64 = text.iter().zip(self.text).map(|(&x, w)| f64::from(x) * w).sum();
        logistic(self.ability * cell.ability + text + self.intercept)
    }

    /// The ability at which an answer is as likely right as wrong: minus the rest of the log-odds, over `a`.
    #[expect(clippy::cast_possible_truncation, reason = "weights are served as f32")]
    fn difficulty(&self, standard: &Standard, ease: &Head) -> Head {
        let per_ability = |weight: f64| (-weight / self.ability) as f32;
        standard.head(per_ability(self.intercept), &self.text.map(per_ability), Some(ease))
    }
}
