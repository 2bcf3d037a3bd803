//! The one learner: L2-regularised logistic regression (linfa) from text vectors, and seeded folds.
//!
//! Knows nothing of abilities or files. A fit returns a [`Head`] that serving scores as it is.

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2, ShapeBuilder};

use super::TrainError;
use super::outcomes::Data;
use crate::routing::adequacy::Head;
use crate::routing::text::{BUCKETS, STRUCTURE, TextVector};

/// Scores from here up count as an adequate answer.
pub(super) const ADEQUATE: f64 = 0.5;
/// L2 penalty on weights of unit-length n-gram vectors. 0.5 to 3 ranked alike in cross-validation.
const PENALTY: f32 = 1.0;
/// Standardised structure is scaled by this, so that sixteen dense features do not outweigh the text.
const STRUCTURE_SCALE: f32 = 0.1;
/// A prior head is trusted more than any one feature of structure: it was learnt from many more rows.
const PRIOR_SCALE: f32 = 0.3;
const ITERATIONS_MAX: u64 = 40;
/// Norm of the gradient of the summed loss at which a fit is done; further steps change no third digit.
const GRADIENT_TOLERANCE: f32 = 0.05;

/// Rows with the score to learn, 0 to 1.
pub(super) type Examples = Vec<(usize, f64)>;

/// The quarter points a mean score is compared with: a row counts once for each, so a half-right row pulls both ways.
const THERMOMETER: [f64; 2] = [0.25, 0.75];

/// Log-odds of a high score, by text. What another head says of the text (`prior`) is one more feature.
pub(super) fn logistic_head(
    data: &Data,
    examples: &[(usize, f64)],
    prior: Option<&Head>,
) -> Result<Head, TrainError> {
    let texts: Vec<&TextVector> = examples.iter().map(|&(row, _)| &data.rows[row].text).collect();
    let scaling = Scaling::of(&texts, prior);
    // A score that is only ever 0 or 1 passes both marks or none: one copy says it all, at twice the speed.
    let binary = examples.iter().all(|&(_, score)| score == 0.0 || score == 1.0);
    let marks = if binary { &THERMOMETER[..1] } else { &THERMOMETER[..] };
    let labels: Array1<bool> = marks
        .iter()
        .flat_map(|mark| examples.iter().map(move |(_, score)| score > mark))
        .collect();
    let mut records = Array2::<f32>::zeros((labels.len(), BUCKETS + DENSE).f());
    for (mut record, text) in records.rows_mut().into_iter().zip(texts.iter().cycle()) {
        for &(bucket, value) in &text.ngrams {
            record[usize::from(bucket)] = value;
        }
        for (at, value) in scaling.scaled(text).into_iter().enumerate() {
            record[BUCKETS + at] = value;
        }
    }
    let fitted = LogisticRegression::<f32>::default()
        .alpha(PENALTY)
        .max_iterations(ITERATIONS_MAX)
        .gradient_tolerance(GRADIENT_TOLERANCE)
        .fit(&DatasetBase::new(records, labels))?;
    // linfa calls one of the two classes positive; only its own answer says which.
    let sign = if fitted.labels().pos.class { 1.0 } else { -1.0 };
    let params = fitted.params().mapv(|weight| weight * sign).to_vec();
    Ok(scaling.unscaled(fitted.intercept() * sign, &params))
}

/// Structure and prior, the features that are not n-grams.
const DENSE: usize = STRUCTURE + 1;

/// Mean and scale of each dense feature.
struct Scaling<'a> {
    prior: Option<&'a Head>,
    mean: [f32; DENSE],
    factor: [f32; DENSE],
}

impl<'a> Scaling<'a> {
    fn of(texts: &[&TextVector], prior: Option<&'a Head>) -> Self {
        let dense: Vec<[f32; DENSE]> = texts.iter().map(|text| dense(text, prior)).collect();
        let mean = |at: usize, f: &dyn Fn(f32) -> f32| {
            dense.iter().map(|features| f(features[at])).sum::<f32>() / dense.len() as f32
        };
        let means = std::array::from_fn(|at| mean(at, &|x| x));
        let factor = std::array::from_fn(|at| {
            let spread = mean(at, &|x| (x - means[at]).powi(2)).sqrt();
            let scale = if at == STRUCTURE { PRIOR_SCALE } else { STRUCTURE_SCALE };
            // A feature that never varies teaches nothing; its factor must not blow up.
            if spread > 1e-4 { scale / spread } else { 0.0 }
        });
        Self { prior, mean: means, factor }
    }

    fn scaled(&self, text: &TextVector) -> [f32; DENSE] {
        let raw = dense(text, self.prior);
        std::array::from_fn(|at| (raw[at] - self.mean[at]) * self.factor[at])
    }

    /// The head that scores raw text as the fit scored the scaled one, the prior's weights added in.
    fn unscaled(&self, intercept: f32, params: &[f32]) -> Head {
        let (ngrams, dense) = params.split_at(BUCKETS);
        let dense: Vec<f32> = dense.iter().zip(self.factor).map(|(w, f)| w * f).collect();
        let shift: f32 = dense.iter().zip(self.mean).map(|(w, mean)| w * mean).sum();
        let mut head = Head {
            intercept: intercept - shift,
            structure: dense[..STRUCTURE].to_vec(),
            ngrams: ngrams.to_vec(),
        };
        if let Some(prior) = self.prior {
            let weight = dense[STRUCTURE];
            let add = |own: &mut [f32], other: &[f32]| {
                own.iter_mut().zip(other).for_each(|(own, other)| *own += weight * other);
            };
            head.intercept += weight * prior.intercept;
            add(&mut head.structure, &prior.structure);
            add(&mut head.ngrams, &prior.ngrams);
        }
        head
    }
}

#[expect(clippy::cast_possible_truncation, reason = "features are f32")]
fn dense(text: &TextVector, prior: Option<&Head>) -> [f32; DENSE] {
    let mut features = [0.0; DENSE];
    features[..STRUCTURE].copy_from_slice(&text.structure);
    features[STRUCTURE] = prior.map_or(0.0, |head| head.score(text) as f32);
    features
}

/// Splits examples into `folds` parts by a seeded shuffle; returns `(train, test)` for each.
pub(super) fn folds(
    data: &Data,
    examples: &Examples,
    folds: usize,
    seed: u64,
) -> Vec<(Examples, Examples)> {
    let mut shuffled = examples.clone();
    shuffled.sort_by_key(|&(row, _)| (data.rows[row].order(seed), row));
    let part = |fold: usize, held_out: bool| {
        let places = shuffled.iter().enumerate();
        places.filter(|(at, _)| (at % folds == fold) == held_out).map(|(_, &e)| e).collect()
    };
    (0..folds).map(|fold| (part(fold, false), part(fold, true))).collect()
}
