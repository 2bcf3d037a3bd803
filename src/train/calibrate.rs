//! Puts the text's score and the models' abilities on one scale, and measures how true the probabilities are.
//!
//! The text score is out of fold wherever it meets an outcome, so what is fitted here is what unseen text will get.

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};
use serde::Serialize;

use super::TrainError;
use super::ability::Abilities;
use super::fit::{ADEQUATE, Examples, folds, logistic_head};
use super::metrics::{Reliability, quantile, reliability};
use super::outcomes::Data;
use crate::routing::adequacy::{Head, logistic};

const FOLDS: usize = 5;
/// Practically none: three parameters from many thousand outcomes need no restraint.
const PENALTY: f64 = 1e-3;

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
#[derive(Clone, Copy)]
struct Cell {
    fold: usize,
    ability: f64,
    /// Out-of-fold log-odds that a strong model gets the row right.
    ease: f64,
    outcome: f64,
}

/// `logit p = ability_weight · ability + ease_weight · ease + intercept`.
#[derive(Clone, Copy)]
struct Link {
    ability_weight: f64,
    ease_weight: f64,
    intercept: f64,
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
        let head = logistic_head(data, train, None)?;
        for &(row, _) in test {
            let ease = head.score(&data.rows[row].text);
            cells.extend(abilities.sound(data, row).map(|outcome| Cell {
                fold,
                ability: abilities.theta[outcome.model],
                ease,
                outcome: outcome.score,
            }));
        }
    }
    let calibration = measure(&cells, examples.len())?;
    tell("learning difficulty", FOLDS, FOLDS + 1);
    let link = Link::fit(cells.iter())?;
    let ease = logistic_head(data, examples, None)?;
    Ok((Scaled { slope: link.ability_weight, difficulty: link.difficulty(&ease) }, calibration))
}

/// Each outcome is predicted by a link fitted without its fold.
fn measure(cells: &[Cell], rows: usize) -> Result<Calibration, TrainError> {
    let mut predicted: Vec<(f64, (f64, f64))> = Vec::with_capacity(cells.len());
    for fold in 0..FOLDS {
        let link = Link::fit(cells.iter().filter(|cell| cell.fold != fold))?;
        let held_out = cells.iter().filter(|cell| cell.fold == fold);
        predicted.extend(held_out.map(|cell| (cell.ability, (link.p(cell), cell.outcome))));
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

impl Link {
    fn fit<'a>(cells: impl Iterator<Item = &'a Cell>) -> Result<Self, TrainError> {
        let (mut inputs, mut labels) = (Vec::new(), Vec::new());
        for cell in cells {
            inputs.extend([cell.ability, cell.ease]);
            labels.push(cell.outcome >= ADEQUATE);
        }
        let records = Array2::from_shape_vec((labels.len(), 2), inputs)
            .unwrap_or_else(|_| Array2::zeros((0, 2)));
        let fitted = LogisticRegression::default()
            .alpha(PENALTY)
            .fit(&DatasetBase::new(records, Array1::from(labels)))?;
        let sign = if fitted.labels().pos.class { 1.0 } else { -1.0 };
        let ability_weight = fitted.params()[0] * sign;
        if ability_weight <= 0.0 {
            return Err(TrainError::Contradictory(ability_weight));
        }
        // Text that foretells nothing out of fold can look faintly harmful; it is then ignored, not believed.
        let ease_weight = (fitted.params()[1] * sign).max(0.0);
        Ok(Self { ability_weight, ease_weight, intercept: fitted.intercept() * sign })
    }

    fn p(self, cell: &Cell) -> f64 {
        logistic(
            self.ability_weight * cell.ability + self.ease_weight * cell.ease + self.intercept,
        )
    }

    /// The ability at which an answer is as likely right as wrong, as a head: `−(ease_weight · ease + c) / a`.
    #[expect(clippy::cast_possible_truncation, reason = "weights are served as f32")]
    fn difficulty(self, ease: &Head) -> Head {
        let factor = (-self.ease_weight / self.ability_weight) as f32;
        let shift = (-self.intercept / self.ability_weight) as f32;
        let scaled = |weights: &[f32]| weights.iter().map(|weight| weight * factor).collect();
        Head {
            intercept: ease.intercept * factor + shift,
            structure: scaled(&ease.structure),
            ngrams: scaled(&ease.ngrams),
        }
    }
}
