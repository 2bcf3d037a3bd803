//! The two learners, both L2-regularised: a ridge for mean scores, linfa's logistic regression for right or wrong.
//!
//! The ridge is solved here by conjugate gradients over the sparse vectors: linfa-elasticnet wants a dense matrix and always
//! inverts the covariance of all features, which is hours for thousands of buckets. Knows nothing of abilities or files. A fit returns a [`Head`] that serving scores as it is.

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
/// L2 penalty on the weights of unit-length n-gram vectors. 0.3 to 2 ranked alike in cross-validation.
const PENALTY: f32 = 1.0;
/// Standardised dense features are scaled by this, so that they do not outweigh the text; 0.1 and 0.2 ranked alike.
const DENSE_SCALE: f32 = 0.1;
/// Conjugate-gradient steps; the penalty bounds the condition number, so that 100 always reach the tolerance here.
const RIDGE_STEPS_MAX: usize = 200;
/// Squared residual, relative to the first, at which the ridge is solved.
const RIDGE_TOLERANCE: f64 = 1e-10;
/// linfa's logistic regression holds its rows densely (33 KB each): of more labels, the first are used.
const DENSE_ROWS_MAX: usize = 16_000;
const LOGISTIC_ITERATIONS_MAX: u64 = 30;
/// Norm of the gradient of the summed loss at which a fit is done.
const GRADIENT_TOLERANCE: f32 = 0.05;

/// Rows with the score to learn, 0 to 1.
pub(super) type Examples = Vec<(usize, f64)>;

/// The mean score as a linear function of the n-grams alone. Its scale is its own; see `calibrate`.
pub(super) fn ridge_head(data: &Data, examples: &[(usize, f64)]) -> Head {
    let mean = examples.iter().map(|(_, score)| score).sum::<f64>() / examples.len().max(1) as f64;
    let texts: Vec<&TextVector> = examples.iter().map(|&(row, _)| &data.rows[row].text).collect();
    let centred = examples.iter().map(|(_, score)| score - mean);
    let weights = conjugate_gradient(&texts, &transposed(&texts, centred));
    #[expect(clippy::cast_possible_truncation, reason = "weights are served as f32")]
    let served = |weight: f64| weight as f32;
    Head {
        intercept: served(mean),
        structure: vec![0.0; STRUCTURE],
        ngrams: weights.into_iter().map(served).collect(),
    }
}

/// Solves `(XᵀX + λI) w = target` (Hestenes and Stiefel, 1952); the rows of X are the n-grams of `texts`.
fn conjugate_gradient(texts: &[&TextVector], target: &[f64]) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut weights = vec![0.0; BUCKETS];
    let mut residual = target.to_vec();
    let mut direction = residual.clone();
    let mut squares = dot(&residual, &residual);
    let enough = squares * RIDGE_TOLERANCE;
    for _ in 0..RIDGE_STEPS_MAX {
        if squares <= enough {
            break;
        }
        let mut image = transposed(texts, texts.iter().map(|text| product(text, &direction)));
        add(&mut image, &direction, f64::from(PENALTY));
        let step = squares / dot(&direction, &image);
        add(&mut weights, &direction, step);
        add(&mut residual, &image, -step);
        let before = std::mem::replace(&mut squares, dot(&residual, &residual));
        direction.iter_mut().zip(&residual).for_each(|(d, r)| *d = r + squares / before * *d);
    }
    weights
}

/// One row of X times a vector.
fn product(text: &TextVector, vector: &[f64]) -> f64 {
    text.ngrams.iter().map(|&(bucket, x)| f64::from(x) * vector[usize::from(bucket)]).sum()
}

/// Xᵀ times a vector with one value a row.
fn transposed(texts: &[&TextVector], values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sum = vec![0.0; BUCKETS];
    for (text, value) in texts.iter().zip(values) {
        for &(bucket, x) in &text.ngrams {
            sum[usize::from(bucket)] += f64::from(x) * value;
        }
    }
    sum
}

fn add(sum: &mut [f64], other: &[f64], factor: f64) {
    sum.iter_mut().zip(other).for_each(|(sum, other)| *sum += factor * other);
}

/// Log-odds of an adequate answer from n-grams, structure, and what another head says of the text.
pub(super) fn logistic_head(
    data: &Data,
    examples: &[(usize, f64)],
    prior: Option<&Head>,
) -> Result<Head, TrainError> {
    let examples = &examples[..examples.len().min(DENSE_ROWS_MAX)];
    let dense: Vec<Dense> =
        examples.iter().map(|&(row, _)| dense(&data.rows[row].text, prior)).collect();
    let standard = Standard::of(&dense, DENSE_SCALE);
    let mut records = ngrams(data, examples, DENSE);
    for (row, raw) in dense.iter().enumerate() {
        for (at, value) in standard.apply(raw).into_iter().enumerate() {
            records[(row, BUCKETS + at)] = value;
        }
    }
    let labels: Array1<bool> = examples.iter().map(|&(_, score)| score >= ADEQUATE).collect();
    let fitted = LogisticRegression::<f32>::default()
        .alpha(PENALTY)
        .max_iterations(LOGISTIC_ITERATIONS_MAX)
        .gradient_tolerance(GRADIENT_TOLERANCE)
        .fit(&DatasetBase::new(records, labels))?;
    // linfa calls one of the two classes positive; only its own answer says which.
    let sign = if fitted.labels().pos.class { 1.0 } else { -1.0 };
    let weights = fitted.params().mapv(|weight| weight * sign).to_vec();
    let (ngrams, dense) = weights.split_at(BUCKETS);
    let mut head = standard.head(fitted.intercept() * sign, dense, prior);
    head.ngrams.iter_mut().zip(ngrams).for_each(|(sum, weight)| *sum += weight);
    Ok(head)
}

/// The n-grams as a matrix with `more` empty columns. Column-major, as both learners go through it column by column:
/// the other order is ten times slower.
fn ngrams(data: &Data, examples: &[(usize, f64)], more: usize) -> Array2<f32> {
    let mut records = Array2::zeros((examples.len(), BUCKETS + more).f());
    for (at, &(row, _)) in examples.iter().enumerate() {
        for &(bucket, value) in &data.rows[row].text.ngrams {
            records[(at, usize::from(bucket))] = value;
        }
    }
    records
}

/// Features that are not n-grams: structure, then another head's score.
pub(super) const DENSE: usize = STRUCTURE + 1;
pub(super) type Dense = [f32; DENSE];

#[expect(clippy::cast_possible_truncation, reason = "features are f32")]
pub(super) fn dense(text: &TextVector, other: Option<&Head>) -> Dense {
    let mut features = [0.0; DENSE];
    features[..STRUCTURE].copy_from_slice(&text.structure);
    features[STRUCTURE] = other.map_or(0.0, |head| head.score(text) as f32);
    features
}

/// Centre and scale of dense features.
pub(super) struct Standard {
    mean: Dense,
    factor: Dense,
}

impl Standard {
    /// So that each feature has mean 0 and standard deviation `scale`.
    #[expect(clippy::cast_possible_truncation, reason = "means of features are of order one")]
    pub(super) fn of(rows: &[Dense], scale: f32) -> Self {
        // In f64: hundreds of thousands of f32 do not add up.
        let mean = |at: usize, f: &dyn Fn(f64) -> f64| {
            rows.iter().map(|row| f(row[at].into())).sum::<f64>() / rows.len() as f64
        };
        let centre: [f64; DENSE] = std::array::from_fn(|at| mean(at, &|x| x));
        let spread = |at: usize| mean(at, &|x| (x - centre[at]).powi(2)).sqrt() as f32;
        Self {
            mean: centre.map(|centre| centre as f32),
            // A feature that never varies teaches nothing; its factor must not blow up.
            factor: std::array::from_fn(
                |at| if spread(at) > 1e-4 { scale / spread(at) } else { 0.0 },
            ),
        }
    }

    pub(super) fn apply(&self, raw: &Dense) -> Dense {
        std::array::from_fn(|at| (raw[at] - self.mean[at]) * self.factor[at])
    }

    /// The head that scores raw text as these weights score its standardised features; `other` is the head whose score
    /// the last feature is.
    pub(super) fn head(&self, intercept: f32, weights: &[f32], other: Option<&Head>) -> Head {
        let raw: Vec<f32> = weights.iter().zip(self.factor).map(|(w, f)| w * f).collect();
        let shift: f32 = raw.iter().zip(self.mean).map(|(w, mean)| w * mean).sum();
        let structure = raw[..STRUCTURE].to_vec();
        let mut head = Head { intercept: intercept - shift, structure, ngrams: vec![0.0; BUCKETS] };
        if let Some(other) = other {
            head.add(other, raw[STRUCTURE]);
        }
        head
    }
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
