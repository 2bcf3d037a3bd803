//! Feature matrices for learners: columns of a text, their scale, and the [`Head`] that serves
//! fitted weights.
//!
//! `sparse` learns; `calibrate` and `model_heads` decide what is learnt.

use super::inputs::Inputs;
use super::outcomes::Data;
use super::sparse::{Example, Matrix, ridge};
use crate::routing::adequacy::Head;
use crate::routing::text::{BUCKETS, STRUCTURE, TextVector};

/// Least score of an adequate answer.
pub(super) const ADEQUATE: f64 = 0.5;
/// L2 penalty on the weights of unit-length n-gram vectors. 0.3 to 2 ranked alike in
/// cross-validation.
const PENALTY: f64 = 1.0;
/// Scale of standardised dense features, so that they do not outweigh the text; 0.1 and 0.2 ranked
/// alike.
const DENSE_SCALE: f32 = 0.1;

/// The mean score as a linear function of the n-grams alone, on a scale of its own; see
/// `calibrate`.
pub(super) fn ridge_head(data: &Data, examples: &[(usize, f64)]) -> Head {
    let mut matrix = Matrix::new(BUCKETS);
    for &(row, _) in examples {
        matrix.push(ngrams(&data.rows[row].text));
    }
    let examples: Vec<Example> = examples
        .iter()
        .enumerate()
        .map(|(row, &(_, target))| Example { row, target, offset: 0.0 })
        .collect();
    let weights: Vec<f32> = ridge(&matrix, &examples, PENALTY).into_iter().map(served).collect();
    let (ngrams, intercept) = weights.split_at(BUCKETS);
    Head { intercept: intercept[0], structure: vec![0.0; STRUCTURE], ngrams: ngrams.to_vec() }
}

fn ngrams(text: &TextVector) -> impl Iterator<Item = (u32, f32)> + '_ {
    text.ngrams.iter().map(|&(bucket, x)| (u32::from(bucket), x))
}

/// Rows of the data as a learner sees them: n-grams, then standardised structure, then an optional
/// vector.
pub(super) struct Texts {
    pub(super) matrix: Matrix,
    standard: Standard,
}

impl Texts {
    pub(super) fn of(data: &Data, rows: &[usize], inputs: Inputs) -> Self {
        let dense: Vec<Dense> = rows.iter().map(|&row| dense(&data.rows[row].text, None)).collect();
        let standard = Standard::of(&dense, DENSE_SCALE);
        let wide = inputs.vectors.map_or(0, |vectors| vectors.width);
        let vectors = inputs.vectors.map(|vectors| vectors.of(data, rows));
        let mut matrix = Matrix::new(BUCKETS + STRUCTURE + wide);
        for (at, (&row, raw)) in rows.iter().zip(&dense).enumerate() {
            let scaled = standard.apply(raw).into_iter().take(STRUCTURE);
            let structure = (BUCKETS..).zip(scaled).map(|(at, x)| (column(at), x));
            let vector = vectors.iter().flat_map(|vectors| vectors[at].iter().copied());
            let vector = (BUCKETS + STRUCTURE..).zip(vector).map(|(at, x)| (column(at), x));
            let text = inputs.ngrams.then(|| ngrams(&data.rows[row].text));
            matrix.push(text.into_iter().flatten().chain(structure).chain(vector));
        }
        Self { matrix, standard }
    }

    /// The head that scores any text as these weights score these rows. Vector columns are ignored.
    pub(super) fn head(&self, weights: &[f64]) -> Head {
        let weights: Vec<f32> = weights.iter().copied().map(served).collect();
        let dense = &weights[BUCKETS..BUCKETS + STRUCTURE];
        let mut head = self.standard.head(weights[BUCKETS + STRUCTURE], dense, None);
        head.ngrams.copy_from_slice(&weights[..BUCKETS]);
        head
    }
}

fn column(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "weights are served as f32")]
fn served(weight: f64) -> f32 {
    weight as f32
}

/// Number of dense features: structure, then the score of another head.
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
    /// Scales each feature to mean 0 and standard deviation `scale`.
    #[expect(clippy::cast_possible_truncation, reason = "means of features are of order one")]
    pub(super) fn of(rows: &[Dense], scale: f32) -> Self {
        // In f64: the sum of hundreds of thousands of f32 loses precision.
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

    /// The head that scores raw text as these weights score its standardised features; the last
    /// weight is that of `other`.
    pub(super) fn head(&self, intercept: f32, weights: &[f32], other: Option<&Head>) -> Head {
        let raw: Vec<f32> = weights.iter().zip(self.factor).map(|(w, f)| w * f).collect();
        let shift: f32 = raw.iter().zip(self.mean).map(|(w, mean)| w * mean).sum();
        let structure = raw[..STRUCTURE].to_vec();
        let mut head = Head { intercept: intercept - shift, structure, ngrams: vec![0.0; BUCKETS] };
        if let (Some(other), Some(&weight)) = (other, raw.get(STRUCTURE)) {
            head.add(other, weight);
        }
        head
    }
}
