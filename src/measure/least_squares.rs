//! Least squares with non-negative coefficients for a few columns. Pure.
//!
//! k columns have 2^k subsets. The non-negative optimum is the plain least-squares solution on one
//! of them, so all are solved and the best admissible one is taken: exact, and shorter than an
//! active-set method.

/// One equation: columns, target and weight.
#[derive(Clone, Copy, Debug)]
pub struct Equation<const K: usize> {
    pub columns: [f64; K],
    pub sum: f64,
    pub weight: f64,
}

impl<const K: usize> Equation<K> {
    /// Weighted by relative error: an answer of a joule counts as much as one of a kilojoule.
    /// `None` for a sum that is not positive.
    pub fn relative(columns: [f64; K], sum: f64) -> Option<Self> {
        (sum > 0.0 && sum.is_finite()).then(|| Self { columns, sum, weight: 1.0 / (sum * sum) })
    }
}

/// Returns the non-negative coefficients with the least weighted sum of squared errors. `None` if
/// all columns are degenerate.
pub fn non_negative<const K: usize>(equations: &[Equation<K>]) -> Option<[f64; K]> {
    let sets = 1..(1_usize << K);
    let solutions = sets.filter_map(|set| solve(equations, |column| set >> column & 1 == 1));
    let admissible =
        solutions.filter(|solution| solution.iter().all(|part| *part >= 0.0 && part.is_finite()));
    admissible.min_by(|a, b| error(equations, a).total_cmp(&error(equations, b)))
}

fn error<const K: usize>(equations: &[Equation<K>], solution: &[f64; K]) -> f64 {
    let errors = equations.iter().map(|equation| {
        let found: f64 =
            equation.columns.iter().zip(solution).map(|(column, part)| column * part).sum();
        equation.weight * (found - equation.sum).powi(2)
    });
    errors.sum()
}

/// Plain least squares on the used columns, by normal equations and Gaussian elimination; the other
/// coefficients are 0. `None` if the used columns are not independent.
fn solve<const K: usize>(
    equations: &[Equation<K>],
    uses: impl Fn(usize) -> bool,
) -> Option<[f64; K]> {
    let mut matrix = [[0.0; K]; K];
    let mut right = [0.0; K];
    for equation in equations {
        for row in (0..K).filter(|&row| uses(row)) {
            let scaled = equation.weight * equation.columns[row];
            right[row] += scaled * equation.sum;
            for column in (0..K).filter(|&column| uses(column)) {
                matrix[row][column] += scaled * equation.columns[column];
            }
        }
    }
    for unused in (0..K).filter(|&row| !uses(row)) {
        matrix[unused][unused] = 1.0;
    }
    let scale = (0..K).map(|row| matrix[row][row]).collect::<Vec<_>>();
    for pivot in 0..K {
        // A vanishing diagonal means that the column depends on those before it.
        if matrix[pivot][pivot] <= 1e-9 * scale[pivot] {
            return None;
        }
        for row in 0..K {
            if row != pivot {
                let factor = matrix[row][pivot] / matrix[pivot][pivot];
                let subtract = matrix[pivot];
                for (cell, part) in matrix[row].iter_mut().zip(subtract) {
                    *cell -= factor * part;
                }
                right[row] -= factor * right[pivot];
            }
        }
    }
    Some(std::array::from_fn(|row| right[row] / matrix[row][row]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn equation(columns: [f64; 3], sum: f64) -> Equation<3> {
        Equation { columns, sum, weight: 1.0 }
    }

    #[test]
    fn what_would_be_negative_is_left_out() {
        // y = 2·a − 1·b: without b, the best a is its projection.
        let rows = [([1.0, 0.0, 1.0], 2.0), ([1.0, 1.0, 2.0], 1.0), ([1.0, 2.0, 3.0], 0.0)];
        let equations: Vec<_> = rows.map(|(columns, sum)| equation(columns, sum)).into();
        let found = non_negative(&equations).unwrap();
        assert!(
            (found[0] - 1.0).abs() < 1e-9 && found[1].abs() < 1e-9 && found[2].abs() < 1e-9,
            "{found:?}"
        );
    }

    #[test]
    fn columns_that_say_nothing_give_nothing() {
        assert_eq!(non_negative(&[equation([0.0; 3], 1.0)]), None);
        assert!(Equation::relative([1.0], 0.0).is_none());
    }

    proptest! {
        #[test]
        fn exact_data_give_their_coefficients_back(
            truth in prop::array::uniform3(0.0..5.0_f64),
            rows in prop::collection::vec((1.0..200.0_f64, 1.0..200.0_f64), 8..30),
        ) {
            let equations: Vec<_> = rows
                .iter()
                .filter_map(|&(a, b)| {
                    Equation::relative([1.0, a, b], truth[0] + truth[1] * a + truth[2] * b)
                })
                .collect();
            prop_assume!(equations.len() == rows.len());
            let found = non_negative(&equations).unwrap();
            for equation in &equations {
                let sum: f64 = equation.columns.iter().zip(found).map(|(c, f)| c * f).sum();
                prop_assert!((sum / equation.sum - 1.0).abs() < 1e-4, "{found:?} for {truth:?}");
            }
        }

        #[test]
        fn no_small_change_does_better(
            rows in prop::collection::vec((0.0..10.0_f64, 0.0..10.0_f64, 0.0..50.0_f64), 4..20),
            change in prop::array::uniform3(-0.01..0.01_f64),
        ) {
            let equations: Vec<_> = rows.iter().map(|&(a, b, y)| equation([1.0, a, b], y)).collect();
            if let Some(found) = non_negative(&equations) {
                let other: [f64; 3] = std::array::from_fn(|i| (found[i] + change[i]).max(0.0));
                prop_assert!(error(&equations, &found) <= error(&equations, &other) * (1.0 + 1e-9) + 1e-9);
            }
        }
    }
}
