//! Regularised linear fits over sparse rows: least squares, and logistic regression with soft
//! labels and offsets.
//!
//! Beside linfa, which fits everything with a few dense columns: its logistic regression takes
//! neither soft labels (means of a task), nor offsets (the log-odds that a row starts from), nor
//! sparse rows (a dense one of hashed n-grams takes 66 KB, 400 MB for one of the hundreds of fits).

use crate::routing::adequacy::logistic;

/// Most conjugate-gradient steps; the penalty bounds the condition number, so that 100 reach the
/// tolerance.
const STEPS_MAX: usize = 200;
/// Squared residual, relative to the first, at which the linear system counts as solved.
const TOLERANCE: f64 = 1e-8;
/// Most Newton steps of a logistic fit; four or five are usual.
const NEWTON_MAX: usize = 25;
/// Relative decrease of the loss below which a Newton step is the last.
const ENOUGH: f64 = 1e-7;
/// Least curvature of a row, so that rows of near certainty do not vanish.
const CURVATURE_MIN: f64 = 1e-4;

/// Rows of `(column, value)`.
pub(super) struct Matrix {
    cells: Vec<(u32, f32)>,
    ends: Vec<usize>,
    columns: usize,
}

impl Matrix {
    pub(super) fn new(columns: usize) -> Self {
        Self { cells: Vec::new(), ends: Vec::new(), columns }
    }

    pub(super) fn push(&mut self, row: impl Iterator<Item = (u32, f32)>) {
        self.cells.extend(row);
        self.ends.push(self.cells.len());
    }

    fn row(&self, at: usize) -> &[(u32, f32)] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.cells[start..self.ends[at]]
    }

    /// Number of columns; weights have one more, the intercept.
    pub(super) fn width(&self) -> usize {
        self.columns
    }

    /// The row's score under weights whose last one is the intercept.
    pub(super) fn score(&self, row: usize, weights: &[f64]) -> f64 {
        let dot = |&(column, x): &(u32, f32)| f64::from(x) * weights[column as usize];
        weights[self.columns] + self.row(row).iter().map(dot).sum::<f64>()
    }

    /// Adds `value` times the row, and `value` to the intercept.
    fn scatter(&self, row: usize, value: f64, sum: &mut [f64]) {
        for &(column, x) in self.row(row) {
            sum[column as usize] += f64::from(x) * value;
        }
        sum[self.columns] += value;
    }
}

/// One training row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Example {
    pub(super) row: usize,
    /// Any number for least squares, a probability for a logistic fit.
    pub(super) target: f64,
    /// Prior score of the row; 0 for none.
    pub(super) offset: f64,
}

/// Weights, then the intercept, of the least squares with an L2 penalty on all but the intercept.
pub(super) fn ridge(matrix: &Matrix, examples: &[Example], penalty: f64) -> Vec<f64> {
    let mut target = vec![0.0; matrix.columns + 1];
    for example in examples {
        matrix.scatter(example.row, example.target - example.offset, &mut target);
    }
    conjugate_gradient(matrix, examples, &vec![1.0; examples.len()], target, penalty)
}

/// The same for the log-loss, by Newton's method.
pub(super) fn logistic_fit(matrix: &Matrix, examples: &[Example], penalty: f64) -> Vec<f64> {
    let mut weights = vec![0.0; matrix.columns + 1];
    let mut loss = loss_of(matrix, examples, &weights, penalty);
    for _ in 0..NEWTON_MAX {
        let (mut gradient, mut curvature) =
            (vec![0.0; weights.len()], Vec::with_capacity(examples.len()));
        for example in examples {
            let p = logistic(example.offset + matrix.score(example.row, &weights));
            matrix.scatter(example.row, example.target - p, &mut gradient);
            curvature.push((p * (1.0 - p)).max(CURVATURE_MIN));
        }
        let penalised = gradient.iter_mut().zip(&weights).take(matrix.columns);
        penalised.for_each(|(gradient, weight)| *gradient -= penalty * weight);
        let step = conjugate_gradient(matrix, examples, &curvature, gradient, penalty);
        let Some((better, lower)) = descend(matrix, examples, &weights, &step, penalty, loss)
        else {
            break;
        };
        let gained = loss - lower;
        (weights, loss) = (better, lower);
        if gained < ENOUGH * loss {
            break;
        }
    }
    weights
}

/// The longest of the step and its halves that lowers the loss.
fn descend(
    matrix: &Matrix,
    examples: &[Example],
    weights: &[f64],
    step: &[f64],
    penalty: f64,
    loss: f64,
) -> Option<(Vec<f64>, f64)> {
    (0..8).map(|halvings| 0.5_f64.powi(halvings)).find_map(|share| {
        let mut tried = weights.to_vec();
        add(&mut tried, step, share);
        let lower = loss_of(matrix, examples, &tried, penalty);
        (lower < loss).then_some((tried, lower))
    })
}

fn loss_of(matrix: &Matrix, examples: &[Example], weights: &[f64], penalty: f64) -> f64 {
    let squares: f64 = weights[..matrix.columns].iter().map(|w| w * w).sum();
    let rows = examples.iter().map(|example| {
        let score = example.offset + matrix.score(example.row, weights);
        // ln(1 + eˣ) − y·x, without overflow.
        score.max(0.0) + (-score.abs()).exp().ln_1p() - example.target * score
    });
    rows.sum::<f64>() + penalty / 2.0 * squares
}

/// Solves `(XᵀDX + λI) w = target` (Hestenes and Stiefel, 1952); D is `curvature`, and the
/// intercept has no λ.
fn conjugate_gradient(
    matrix: &Matrix,
    examples: &[Example],
    curvature: &[f64],
    target: Vec<f64>,
    penalty: f64,
) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut weights = vec![0.0; target.len()];
    let mut residual = target;
    let mut direction = residual.clone();
    let mut squares = dot(&residual, &residual);
    let enough = squares * TOLERANCE;
    for _ in 0..STEPS_MAX {
        if squares <= enough {
            break;
        }
        let mut image = vec![0.0; direction.len()];
        for (example, d) in examples.iter().zip(curvature) {
            let value = d * matrix.score(example.row, &direction);
            matrix.scatter(example.row, value, &mut image);
        }
        add(&mut image[..matrix.columns], &direction[..matrix.columns], penalty);
        let step = squares / dot(&direction, &image);
        add(&mut weights, &direction, step);
        add(&mut residual, &image, -step);
        let before = std::mem::replace(&mut squares, dot(&residual, &residual));
        direction.iter_mut().zip(&residual).for_each(|(d, r)| *d = r + squares / before * *d);
    }
    weights
}

fn add(sum: &mut [f64], other: &[f64], factor: f64) {
    sum.iter_mut().zip(other).for_each(|(sum, other)| *sum += factor * other);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One column x, with target `of(x)`.
    fn line(of: impl Fn(f64) -> f64) -> (Matrix, Vec<Example>) {
        let mut matrix = Matrix::new(1);
        let examples = (0..200_u8)
            .map(|row| {
                let x = f64::from(row) / 50.0 - 2.0;
                matrix.push(std::iter::once((0, f32::from(row) / 50.0 - 2.0)));
                Example { row: row.into(), target: of(x), offset: 0.0 }
            })
            .collect();
        (matrix, examples)
    }

    #[test]
    fn least_squares_finds_a_line_and_the_penalty_shrinks_it() {
        let (matrix, examples) = line(|x| 3.0 * x + 1.0);
        let found = ridge(&matrix, &examples, 1e-9);
        assert!((found[0] - 3.0).abs() < 1e-4 && (found[1] - 1.0).abs() < 1e-4, "{found:?}");
        assert!(ridge(&matrix, &examples, 100.0)[0] < 2.5);
    }

    #[test]
    fn soft_labels_recover_the_log_odds_they_were_made_from() {
        let (matrix, mut examples) = line(|x| logistic(1.5 * x - 0.5));
        let found = logistic_fit(&matrix, &examples, 1e-6);
        assert!((found[0] - 1.5).abs() < 1e-3 && (found[1] + 0.5).abs() < 1e-3, "{found:?}");
        // An offset that explains the target leaves nothing to learn.
        for example in &mut examples {
            example.offset = matrix.score(example.row, &[1.5, -0.5]);
        }
        let rest = logistic_fit(&matrix, &examples, 1e-6);
        assert!(rest.iter().all(|weight| weight.abs() < 1e-3), "{rest:?}");
    }

    #[test]
    fn separable_labels_stay_finite() {
        let (matrix, examples) = line(|x| f64::from(u8::from(x > 0.0)));
        let found = logistic_fit(&matrix, &examples, 0.1);
        assert!(found.iter().all(|weight| weight.is_finite()) && found[0] > 1.0, "{found:?}");
    }
}
