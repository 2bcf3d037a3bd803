//! Abilities of models and difficulties of rows: a Rasch model over all sources at once.
//!
//! `p = σ(θ_model − b_row)`. Sources are connected by the models they share. Reads outcomes only,
//! never text.

use serde::Serialize;

use super::outcomes::{Data, Outcome};
use crate::routing::adequacy::logistic;

/// Prior precision (1/variance, logits⁻²): models spread widely, rows with few answers shrink to
/// the mean.
const MODEL_PRECISION: f64 = 0.05;
const ROW_PRECISION: f64 = 0.3;
/// Alternations of Newton steps; abilities move by less than 0.01 after about 40.
const STEPS: usize = 60;
/// A model this many logits below its prediction from other tasks fails at the answer format, not
/// at the question.
const FORMAT_FAILURE_LOGITS: f64 = -1.5;
/// Least number of answers for that conclusion.
const FORMAT_FAILURE_ANSWERS_MIN: usize = 20;
/// Dropping a failure shifts abilities and can uncover the next one.
const ROUNDS_MAX: usize = 4;

/// Scores of one model on one task that measure the answer format instead of ability.
#[derive(Clone, Debug, Serialize)]
pub struct FormatFailure {
    pub task: String,
    pub model: String,
    pub answers: usize,
    /// Mean score.
    pub observed: f64,
    /// Mean score predicted from the model's other tasks.
    pub expected: f64,
}

pub(super) struct Abilities {
    /// By model, logits; mean 0.
    pub(super) theta: Vec<f64>,
    pub(super) failures: Vec<FormatFailure>,
    /// By task and model: whether the scores are format failures.
    unsound: Vec<bool>,
    models: usize,
}

impl Abilities {
    /// Outcomes of a row, without format failures.
    pub(super) fn sound<'a>(
        &'a self,
        data: &'a Data,
        row: usize,
    ) -> impl Iterator<Item = &'a Outcome> {
        let row = &data.rows[row];
        let cell = move |outcome: &&Outcome| !self.unsound[row.task * self.models + outcome.model];
        row.outcomes.iter().filter(cell)
    }
}

pub(super) fn fit(data: &Data) -> Abilities {
    let models = data.models.len();
    let mut abilities = Abilities {
        theta: vec![0.0; models],
        failures: Vec::new(),
        unsound: vec![false; data.tasks.len() * models],
        models,
    };
    for _ in 0..ROUNDS_MAX {
        let difficulty = rasch(data, &mut abilities);
        if !drop_failures(data, &mut abilities, &difficulty) {
            break;
        }
    }
    let mean = abilities.theta.iter().sum::<f64>() / models as f64;
    abilities.theta.iter_mut().for_each(|theta| *theta -= mean);
    abilities
}

/// Ability of one model from the `(easiness, score)` of the texts it answered, `p = σ(easiness +
/// slope · θ)`.
pub(super) fn place(scores: &[(f64, f64)], slope: f64) -> f64 {
    let mut rise = 0.0;
    for _ in 0..STEPS {
        let mut newton = Newton::default();
        for &(easiness, score) in scores {
            newton.add(logistic(easiness + rise), score);
        }
        rise += newton.step(rise, MODEL_PRECISION).clamp(-1.0, 1.0);
    }
    rise / slope
}

/// Alternates one Newton step for all rows with one for all models. Returns the rows' difficulties.
fn rasch(data: &Data, abilities: &mut Abilities) -> Vec<f64> {
    let mut difficulty = vec![0.0; data.rows.len()];
    for _ in 0..STEPS {
        let mut models = vec![Newton::default(); abilities.theta.len()];
        for (row, b) in difficulty.iter_mut().enumerate() {
            let mut own = Newton::default();
            for outcome in abilities.sound(data, row) {
                own.add(logistic(abilities.theta[outcome.model] - *b), outcome.score);
            }
            *b -= own.step(-*b, ROW_PRECISION);
            for outcome in abilities.sound(data, row) {
                models[outcome.model]
                    .add(logistic(abilities.theta[outcome.model] - *b), outcome.score);
            }
        }
        for (theta, newton) in abilities.theta.iter_mut().zip(models) {
            *theta += newton.step(*theta, MODEL_PRECISION);
        }
    }
    difficulty
}

/// Gradient and curvature of the log-likelihood in one parameter.
#[derive(Clone, Copy, Default)]
struct Newton {
    gradient: f64,
    curvature: f64,
}

impl Newton {
    fn add(&mut self, p: f64, score: f64) {
        self.gradient += score - p;
        self.curvature += p * (1.0 - p);
    }

    /// Newton step of a parameter at `value` with a normal prior around 0.
    fn step(self, value: f64, precision: f64) -> f64 {
        (self.gradient - precision * value) / (self.curvature + precision)
    }
}

/// Marks cells far below expectation. Returns whether any was new.
fn drop_failures(data: &Data, abilities: &mut Abilities, difficulty: &[f64]) -> bool {
    let mut cells = vec![Cell::default(); abilities.unsound.len()];
    for (row, b) in difficulty.iter().enumerate() {
        for outcome in abilities.sound(data, row) {
            let p = logistic(abilities.theta[outcome.model] - b);
            let cell = &mut cells[data.rows[row].task * abilities.models + outcome.model];
            cell.newton.add(p, outcome.score);
            cell.answers += 1;
            cell.observed += outcome.score;
            cell.expected += p;
        }
    }
    let before = abilities.failures.len();
    for (at, cell) in cells.into_iter().enumerate() {
        if cell.answers >= FORMAT_FAILURE_ANSWERS_MIN
            && cell.newton.step(0.0, 0.0) < FORMAT_FAILURE_LOGITS
        {
            abilities.unsound[at] = true;
            abilities.failures.push(FormatFailure {
                task: data.tasks[at / abilities.models].clone(),
                model: data.models[at % abilities.models].clone(),
                answers: cell.answers,
                observed: cell.observed / cell.answers as f64,
                expected: cell.expected / cell.answers as f64,
            });
        }
    }
    abilities.failures.len() > before
}

#[derive(Clone, Copy, Default)]
struct Cell {
    newton: Newton,
    answers: usize,
    observed: f64,
    expected: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::outcomes::tests::data;

    /// Row difficulties −2 to 2, three models 1.5 logits apart; right if able enough, one answer in
    /// seven inverted.
    fn lines(format_failure: bool) -> String {
        let mut lines = String::new();
        for row in 0..140_u32 {
            let difficulty = f64::from(row % 9) * 0.5 - 2.0;
            let score = |model: u32, ability: f64| {
                let lucky = (row + 3 * model).is_multiple_of(7);
                u8::from((ability > difficulty) != lucky)
            };
            let (task, broken) = if row < 40 { ("other", format_failure) } else { ("main", false) };
            let best = if broken { 0 } else { score(2, 1.5) };
            let (weak, middle) = (score(0, -1.5), score(1, 0.0));
            let outcomes = format!(r#"{{"a":{weak},"b":{middle},"c":{best}}}"#);
            let start = format!(r#"{{"id":"{row}","source":"s","task":"{task}","query":"q{row}""#);
            lines.extend([start.as_str(), r#","outcomes":"#, outcomes.as_str(), "}"]);
            lines.push('\n');
        }
        lines
    }

    #[test]
    fn abilities_are_ordered_and_centred() {
        let abilities = fit(&data(&lines(false)));
        let theta = &abilities.theta;
        assert!(theta[0] < theta[1] && theta[1] < theta[2], "{theta:?}");
        assert!(theta.iter().sum::<f64>().abs() < 1e-9);
        assert!(abilities.failures.is_empty(), "{:?}", abilities.failures);
    }

    #[test]
    fn a_new_model_gets_the_ability_that_generated_its_scores() {
        let scores = |theta: f64| -> Vec<(f64, f64)> {
            let easiness = (0..400_u16).map(|i| f64::from(i) / 100.0 - 2.0);
            easiness.map(|e| (e, logistic(e + 0.8 * theta))).collect()
        };
        for theta in [-2.0, 0.0, 1.5] {
            assert!((place(&scores(theta), 0.8) - theta).abs() < 0.05);
        }
        assert!(
            place(&[(0.0, 1.0); 30], 0.8).is_finite(),
            "a perfect score is not infinite ability"
        );
    }

    #[test]
    fn answers_in_the_wrong_format_do_not_count_against_a_model() {
        let (sound, broken) = (fit(&data(&lines(false))), fit(&data(&lines(true))));
        let [failure] = &broken.failures[..] else { panic!("{:?}", broken.failures) };
        assert_eq!((failure.task.as_str(), failure.model.as_str()), ("s/other", "c"));
        assert!((broken.theta[2] - sound.theta[2]).abs() < 0.5);
    }
}
