//! Calibration of the general model: text and abilities on one scale, and the reliability of its
//! probabilities.
//!
//! `logit p = slope · ability + structure of the text + n · score of its n-grams + c`, fitted on
//! every outcome; n-gram scores are out of fold, so the fit sees what unseen text will get.
//! Structure is fitted here and not with the n-grams: it describes differences between kinds of
//! task (number of options, length, mathematics) from thousands of rows, where it calibrates other
//! sources' prompts. A slope that depends on the text was better calibrated here but ranked an
//! unseen source worse.
//!
//! Uses linfa: a few dense columns and hard labels.

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2, ShapeBuilder};
use serde::Serialize;

use super::ability::Abilities;
use super::error::TrainError;
use super::fit::{ADEQUATE, DENSE, Dense, Standard, dense, ridge_head};
use super::metrics::{Bin, Reliability, bins, quantile, reliability};
use super::outcomes::Data;
use crate::routing::adequacy::{Head, logistic};

const FOLDS: usize = 5;
/// Light: a few dozen weights from many thousand outcomes need little regularisation, from twenty
/// rows they need some.
const PENALTY: f64 = 1.0;

/// Most outcomes that the scale is fitted on; of more, every n-th is taken.
const CELLS_MAX: usize = 400_000;
/// The fourth digit of the calibration error no longer changes after 20.
const ITERATIONS_MAX: u64 = 30;

/// Held-out quality of the general model.
#[derive(Clone, Debug, Serialize)]
pub struct Calibration {
    pub folds: usize,
    /// Rows that the difficulty of text was learnt from.
    pub rows: usize,
    pub all: Reliability,
    /// Predicted against observed, for the plot.
    pub curve: Vec<Bin>,
    /// Lower, middle and upper third of the outcomes by ability.
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
    pub(super) easiness: Head,
}

/// Rows that teach difficulty, with the mean score of the strong models that answered.
pub(super) type Examples = Vec<(usize, f64)>;

/// One outcome as the fit sees it.
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
    for (fold, (train, test)) in folds(data, examples, seed).iter().enumerate() {
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
    let stride = cells.len().div_ceil(CELLS_MAX).max(1);
    let cells: Vec<Cell> = cells.into_iter().step_by(stride).collect();
    tell("learning difficulty", FOLDS, FOLDS + 1);
    let ease = ridge_head(data, examples);
    let texts: Vec<Dense> = cells.iter().map(|cell| cell.text).collect();
    let standard = Standard::of(&texts, 1.0);
    tell("calibrating", 0, 1);
    let calibration = measure(&cells, &standard, examples.len())?;
    let link = Link::fit(cells.iter(), &standard)?;
    Ok((link.scaled(&standard, &ease), calibration))
}

/// Splits examples by a seeded shuffle; `(train, test)` for each fold.
fn folds(data: &Data, examples: &Examples, seed: u64) -> Vec<(Examples, Examples)> {
    let mut shuffled = examples.clone();
    shuffled.sort_by_key(|&(row, _)| (data.rows[row].order(seed), row));
    let part = |fold: usize, held_out: bool| {
        let places = shuffled.iter().enumerate();
        places.filter(|(at, _)| (at % FOLDS == fold) == held_out).map(|(_, &e)| e).collect()
    };
    (0..FOLDS).map(|fold| (part(fold, false), part(fold, true))).collect()
}

/// Predicts each outcome by a fit without its fold.
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
        curve: bins(&all),
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
            for (at, value) in standard.apply(&cell.text).into_iter().map(f64::from).enumerate() {
                records[(row, at)] = value;
            }
            records[(row, DENSE)] = cell.ability;
        }
        let labels: Array1<bool> = cells.iter().map(|cell| cell.outcome >= ADEQUATE).collect();
        let fitted = LogisticRegression::default()
            .alpha(PENALTY)
            .max_iterations(ITERATIONS_MAX)
            .fit(&DatasetBase::new(records, labels))?;
        let sign = if fitted.labels().pos.class { 1.0 } else { -1.0 };
        let weight = |at: usize| fitted.params()[at] * sign;
        let ability = weight(DENSE);
        if ability > 0.0 {
            Ok(Self {
                ability,
                text: std::array::from_fn(weight),
                intercept: fitted.intercept() * sign,
            })
        } else {
            Err(TrainError::Contradictory(ability))
        }
    }

    fn p(&self, cell: &Cell, standard: &Standard) -> f64 {
        let text = standard.apply(&cell.text);
        let text: f64 = text.iter().zip(self.text).map(|(&x, w)| f64::from(x) * w).sum();
        logistic(self.intercept + text + self.ability * cell.ability)
    }

    #[expect(clippy::cast_possible_truncation, reason = "weights are served as f32")]
    fn scaled(&self, standard: &Standard, ease: &Head) -> Scaled {
        let weights = self.text.map(|weight| weight as f32);
        let easiness = standard.head(self.intercept as f32, &weights, Some(ease));
        Scaled { slope: self.ability, easiness }
    }
}
