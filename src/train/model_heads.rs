//! Heads of models with direct labels: their outcomes beyond ability and difficulty.
//!
//! For sources that asked only a few models: their rows cannot be separated into hard and unlucky
//! ones, but each model's own outcomes can be learnt. A single label is mostly luck, so a learner
//! may train on the mean of the row's task instead, and may start from the general model.
//! Cross-validation within the given rows chooses how far it does either.

use std::collections::BTreeMap;

use super::fit::{ADEQUATE, Texts};
use super::inputs::Inputs;
use super::metrics::{Ranking, Routed, ranking};
use super::outcomes::Data;
use super::sparse::{Example, logistic_fit};
use crate::routing::AdequacyModel;
use crate::routing::adequacy::{Head, Labelled, logistic};

/// Least number of right and of wrong answers for a head of its own; with fewer it would be noise.
const LABELS_PER_CLASS_MIN: usize = 5;
/// Weight of the overall mean in a task's mean, in labels.
const TASK_PRIOR_LABELS: f64 = 10.0;
/// Most rows of one source that heads are learnt from and evaluated on: every choice is repeated
/// hundreds of times.
const ROWS_MAX: usize = 6_000;
/// Folds in which a recipe is chosen.
const CHOICE_FOLDS: usize = 3;
/// Most rows of other sources that familiarity is learnt against.
const STRANGERS_MAX: usize = 4_000;
const FAMILIARITY_PENALTY: f64 = 0.3;
/// Log-odds of familiarity if there is no other source to compare with.
const FAMILIAR: f32 = 8.0;

/// How labels become a head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Learner {
    /// Share of the task's mean in a target, the rest being the label itself.
    task_share: f64,
    penalty: f64,
    /// Starts from the general model instead of from zero.
    anchored: bool,
}

/// Learners whose log-odds are averaged: their errors differ, so the mean varies less than any one.
pub(super) type Recipe = &'static [Learner];

const RECIPES: [(&str, Recipe); 3] = [
    ("few labels: ability and difficulty, gently corrected", &[ANCHORED_FIRMLY]),
    ("single labels", &[ANCHORED, PLAIN]),
    ("labels drawn towards their task's mean", &[PLAIN, HALFWAY, TO_TASKS, TASKS]),
];
const ANCHORED_FIRMLY: Learner = Learner { task_share: 0.0, penalty: 10.0, anchored: true };
const ANCHORED: Learner = Learner { task_share: 0.0, penalty: 2.0, anchored: true };
const PLAIN: Learner = Learner { task_share: 0.0, penalty: 3.0, anchored: false };
const HALFWAY: Learner = Learner { task_share: 0.5, penalty: 0.5, anchored: false };
const TO_TASKS: Learner = Learner { task_share: 0.85, penalty: 0.3, anchored: false };
const TASKS: Learner = Learner { task_share: 1.0, penalty: 0.3, anchored: false };

/// Description for the card.
pub(super) fn describe(recipe: Recipe) -> &'static str {
    RECIPES.iter().find(|(_, known)| *known == recipe).map_or("", |(name, _)| name)
}

fn anchored_share(recipe: Recipe) -> f64 {
    recipe.iter().filter(|learner| learner.anchored).count() as f64 / recipe.len() as f64
}

/// Learning and evaluation on one source.
pub(super) struct CrossValidation<'a> {
    data: &'a Data,
    /// Rows of the data, in seeded order; learners refer to them by their index here.
    pub(super) rows: Vec<usize>,
    pub(super) models: Vec<Labels>,
    texts: Texts,
}

/// Scores of one model.
pub(super) struct Labels {
    /// Index into [`Data::models`].
    pub(super) model: usize,
    /// By row index: the score, and the log-odds of the general model.
    scores: BTreeMap<usize, (f64, f64)>,
}

impl Labels {
    pub(super) fn score(&self, place: usize) -> Option<f64> {
        self.scores.get(&place).map(|(score, _)| *score)
    }

    /// Probability by the general model.
    pub(super) fn prior(&self, place: usize) -> Option<f64> {
        self.scores.get(&place).map(|(_, prior)| logistic(*prior))
    }

    fn log_odds(&self, place: usize) -> f64 {
        self.scores.get(&place).map_or(0.0, |(_, prior)| *prior)
    }

    pub(super) fn accuracy(&self) -> f64 {
        let sum: f64 = self.scores.values().map(|(score, _)| score).sum();
        sum / self.scores.len().max(1) as f64
    }
}

/// Probabilities by model, then row index; only for rows with a label of that model.
pub(super) type Predicted = Vec<BTreeMap<usize, f64>>;

impl<'a> CrossValidation<'a> {
    /// `general` supplies the log-odds that anchored learners start from; without it they start
    /// from zero.
    pub(super) fn of(
        data: &'a Data,
        source: usize,
        general: Option<&AdequacyModel>,
        seed: u64,
        inputs: Inputs,
    ) -> Self {
        let mut rows: Vec<usize> =
            (0..data.rows.len()).filter(|&row| data.rows[row].source == source).collect();
        rows.sort_by_key(|&row| (data.rows[row].order(seed), row));
        rows.truncate(ROWS_MAX);
        let texts = Texts::of(data, &rows, inputs);
        let models = labelled_models(data, &rows, general);
        Self { data, rows, models, texts }
    }

    /// Weak and strong: the least and the most accurate model; `None` with fewer than two.
    pub(super) fn pair(&self) -> Option<(&Labels, &Labels)> {
        match &self.models[..] {
            [weak, .., strong] => Some((weak, strong)),
            _ => None,
        }
    }

    /// Mean of the weights of the recipe's learners.
    fn weights(&self, labels: &Labels, places: &[usize], recipe: Recipe) -> Vec<f64> {
        let mut mean = vec![0.0; self.texts.matrix.width() + 1];
        for learner in recipe {
            let found = self.learn_one(labels, places, *learner);
            mean.iter_mut().zip(found).for_each(|(mean, w)| *mean += w / recipe.len() as f64);
        }
        mean
    }

    fn learn_one(&self, labels: &Labels, places: &[usize], learner: Learner) -> Vec<f64> {
        let known: Vec<(usize, f64)> =
            places.iter().filter_map(|&place| Some((place, labels.score(place)?))).collect();
        let means = self.task_means(&known);
        let share = learner.task_share;
        let examples: Vec<Example> = known
            .iter()
            .map(|&(place, score)| Example {
                row: place,
                target: share * means[&self.task(place)] + (1.0 - share) * score,
                offset: if learner.anchored { labels.log_odds(place) } else { 0.0 },
            })
            .collect();
        logistic_fit(&self.texts.matrix, &examples, learner.penalty)
    }

    fn task(&self, place: usize) -> usize {
        self.data.rows[self.rows[place]].task
    }

    /// Mean score by task, shrunk to the overall mean.
    fn task_means(&self, known: &[(usize, f64)]) -> BTreeMap<usize, f64> {
        let all = known.iter().map(|(_, score)| score).sum::<f64>() / known.len().max(1) as f64;
        let mut sums: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
        for &(place, score) in known {
            let (sum, count) = sums.entry(self.task(place)).or_default();
            *sum += score;
            *count += 1.0;
        }
        let drawn = |(task, (sum, count)): (usize, (f64, f64))| {
            (task, (sum + TASK_PRIOR_LABELS * all) / (count + TASK_PRIOR_LABELS))
        };
        sums.into_iter().map(drawn).collect()
    }

    /// Learns on some rows and predicts others.
    pub(super) fn predict(&self, train: &[usize], test: &[usize], recipe: Recipe) -> Predicted {
        let share = anchored_share(recipe);
        let one = |labels: &Labels| {
            let weights = self.weights(labels, train, recipe);
            let labelled = test.iter().filter(|place| labels.scores.contains_key(place));
            let p = |place: usize| {
                let score = self.texts.matrix.score(place, &weights);
                logistic(share * labels.log_odds(place) + score)
            };
            labelled.map(|&place| (place, p(place))).collect()
        };
        self.models.iter().map(one).collect()
    }

    /// The recipe with the least error within these rows: of the pair's gain, or with one model of
    /// its adequacy.
    pub(super) fn choose(&self, places: &[usize]) -> Recipe {
        let error = |recipe: Recipe| {
            let mut predicted: Predicted = vec![BTreeMap::new(); self.models.len()];
            for fold in 0..CHOICE_FOLDS {
                let (train, test) = split(places, CHOICE_FOLDS, fold);
                let part = self.predict(&train, &test, recipe);
                predicted.iter_mut().zip(part).for_each(|(all, part)| all.extend(part));
            }
            mean_square(&self.gains(&predicted).unwrap_or_else(|| self.outcomes(&predicted)))
        };
        let tried = RECIPES.iter().map(|(_, recipe)| (error(recipe), *recipe));
        tried
            .reduce(|best, next| if next.0 < best.0 { next } else { best })
            .map_or(&[], |best| best.1)
    }

    /// The pair's gain, predicted and observed, over the rows that both have; `None` without a
    /// pair.
    fn gains(&self, predicted: &Predicted) -> Option<Vec<(f64, f64)>> {
        let routed = self.routed(predicted)?;
        Some(routed.into_iter().map(|query| (query.score, query.strong - query.weak)).collect())
    }

    /// How well the predictions rank the gain of the pair.
    pub(super) fn ranking(&self, predicted: &Predicted) -> Option<Ranking> {
        ranking(&self.routed(predicted)?)
    }

    fn routed(&self, predicted: &Predicted) -> Option<Vec<Routed>> {
        let ((weak, strong), (p_weak, p_strong)) =
            (self.pair()?, (predicted.first()?, predicted.last()?));
        let both = |(place, p): (&usize, &f64)| {
            let (weak, strong) = (weak.score(*place)?, strong.score(*place)?);
            Some(Routed { score: p_strong.get(place)? - p, weak, strong })
        };
        Some(p_weak.iter().filter_map(both).collect())
    }

    /// Every prediction with its outcome.
    pub(super) fn outcomes(&self, predicted: &Predicted) -> Vec<(f64, f64)> {
        let of = |(labels, predicted): (&Labels, &BTreeMap<usize, f64>)| -> Vec<(f64, f64)> {
            predicted.iter().filter_map(|(at, p)| Some((*p, labels.score(*at)?))).collect()
        };
        self.models.iter().zip(predicted).flat_map(of).collect()
    }

    /// The heads that the router keeps, learnt from all rows of the source.
    pub(super) fn learn(
        &self,
        source: &str,
        recipe: Recipe,
        general: Option<&AdequacyModel>,
    ) -> Labelled {
        let all: Vec<usize> = (0..self.rows.len()).collect();
        let head = |labels: &Labels| {
            let name = self.data.models[labels.model].clone();
            let mut head = self.texts.head(&self.weights(labels, &all, recipe));
            if let Some(general) = general {
                general.add_log_odds(&mut head, &name, anchored_share(recipe));
            }
            (name, head)
        };
        Labelled {
            source: source.to_owned(),
            familiarity: self.familiarity(),
            heads: self.models.iter().map(head).collect(),
        }
    }

    /// Log-odds that a text is of this source and not of another; near certainty if there is no
    /// other.
    fn familiarity(&self) -> Head {
        let own: std::collections::BTreeSet<usize> = self.rows.iter().copied().collect();
        let strangers: Vec<usize> =
            (0..self.data.rows.len()).filter(|row| !own.contains(row)).collect();
        let stride = strangers.len().div_ceil(STRANGERS_MAX).max(1);
        let rows: Vec<usize> =
            self.rows.iter().copied().chain(strangers.into_iter().step_by(stride)).collect();
        let texts = Texts::of(self.data, &rows, Inputs::SERVED);
        let examples: Vec<Example> = (0..rows.len())
            .map(|row| {
                let target = if row < self.rows.len() { 1.0 } else { 0.0 };
                Example { row, target, offset: 0.0 }
            })
            .collect();
        if rows.len() == self.rows.len() {
            return Head {
                intercept: FAMILIAR,
                ..texts.head(&vec![0.0; texts.matrix.width() + 1])
            };
        }
        texts.head(&logistic_fit(&texts.matrix, &examples, FAMILIARITY_PENALTY))
    }
}

fn mean_square(pairs: &[(f64, f64)]) -> f64 {
    pairs.iter().map(|(a, b)| (a - b).powi(2)).sum::<f64>() / pairs.len().max(1) as f64
}

/// `(train, test)`: `test` is every `folds`-th index.
pub(super) fn split(places: &[usize], folds: usize, fold: usize) -> (Vec<usize>, Vec<usize>) {
    let part = |held_out: bool| {
        let numbered = places.iter().enumerate();
        numbered.filter(|(at, _)| (at % folds == fold) == held_out).map(|(_, &p)| p).collect()
    };
    (part(false), part(true))
}

/// Models with enough labels of both classes, least accurate first.
fn labelled_models(data: &Data, rows: &[usize], general: Option<&AdequacyModel>) -> Vec<Labels> {
    let mut by_model: BTreeMap<usize, BTreeMap<usize, (f64, f64)>> = BTreeMap::new();
    for (place, &row) in rows.iter().enumerate() {
        let row = &data.rows[row];
        for outcome in &row.outcomes {
            let known = general.and_then(|general| {
                let ability = general.abilities.get(&data.models[outcome.model])?;
                Some(general.log_odds(&row.text, *ability))
            });
            let scores = by_model.entry(outcome.model).or_default();
            scores.insert(place, (outcome.score, known.unwrap_or(0.0)));
        }
    }
    let mut labels: Vec<Labels> = by_model
        .into_iter()
        .map(|(model, scores)| Labels { model, scores })
        .filter(|labels| {
            let right = labels.scores.values().filter(|(score, _)| *score >= ADEQUATE).count();
            right.min(labels.scores.len() - right) >= LABELS_PER_CLASS_MIN
        })
        .collect();
    labels.sort_by(|a, b| a.accuracy().total_cmp(&b.accuracy()));
    labels
}
