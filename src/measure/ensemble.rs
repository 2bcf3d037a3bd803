//! Several models of one run together: how many questions any of them answers, the smallest
//! adequate one of each domain, and what an oracle that always chose it would save. Pure.
//!
//! The paper's measures: coverage, best-of-local, and the saving of perfect routing against sending
//! everything to the model that answers best.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::journal::Row;
use super::stats::{Estimate, Interval, bootstrap, share};
use crate::routing::Route;

/// Figures of all models of a run, over the questions that each of them answered alone.
#[derive(Clone, Debug, Serialize)]
pub struct Ensemble {
    pub questions: usize,
    /// Share of questions that each model answers right, by model.
    pub coverage: BTreeMap<String, Estimate>,
    /// Share that at least one local model answers right; absent with fewer than two of them.
    pub best_of_local: Option<Estimate>,
    /// The model that answers most, against which the oracle is compared.
    pub best: String,
    /// By domain: the model of least energy that is as accurate as the best one there, within
    /// `AS_GOOD`.
    pub smallest_adequate: BTreeMap<String, String>,
    /// Outcome and energy of an oracle that asks the cheapest model that answers right, and the
    /// cheapest of all where none does.
    pub oracle: Option<Oracle>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Oracle {
    pub accuracy: Estimate,
    /// Mean joules of a question.
    pub joules: f64,
    /// Share of energy that it saves against the best model alone.
    pub saving: Estimate,
}

/// A model is adequate if its share of right answers is at least this part of the best one's.
const AS_GOOD: f64 = 0.95;
const RESAMPLES: usize = 2000;

/// One question: mean outcome and mean joules of each model, in order of their names.
struct Question {
    domain: String,
    answers: Vec<Answer>,
}

#[derive(Clone, Copy)]
struct Answer {
    outcome: f64,
    joules: Option<f64>,
}

/// `None` for fewer than two models, or without a question that all of them answered.
pub fn ensemble(rows: &[Row], seed: u64) -> Option<Ensemble> {
    let rows: Vec<&Row> = rows
        .iter()
        .filter(|row| row.batch == 1 && row.error.is_none() && row.score.is_some())
        .collect();
    let models: Vec<&str> =
        rows.iter().map(|row| row.model.as_str()).collect::<BTreeSet<_>>().into_iter().collect();
    let questions = questions(&rows, &models);
    if models.len() < 2 || questions.is_empty() {
        return None;
    }
    let right = |model: usize| questions.iter().map(|one| one.answers[model].outcome).sum::<f64>();
    let count = questions.len() as f64;
    let best = (0..models.len()).max_by(|&a, &b| right(a).total_cmp(&right(b)))?;
    let coverage = (0..models.len())
        .filter_map(|model| Some((models[model].to_owned(), share(right(model), count)?)));
    let local: Vec<usize> = (0..models.len())
        .filter(|&model| {
            rows.iter().any(|row| row.model == models[model] && row.route == Route::Local)
        })
        .collect();
    let any_local = questions
        .iter()
        .map(|one| local.iter().map(|&model| one.answers[model].outcome).fold(0.0, f64::max));
    Some(Ensemble {
        questions: questions.len(),
        coverage: coverage.collect(),
        best_of_local: if local.len() > 1 { share(any_local.sum(), count) } else { None },
        best: models[best].to_owned(),
        smallest_adequate: smallest_adequate(&questions, &models),
        oracle: oracle(&questions, best, seed),
    })
}

/// Rows, sum of outcomes and sum of joules of one model at one question.
type Sums = (f64, f64, Option<f64>);

fn questions(rows: &[&Row], models: &[&str]) -> Vec<Question> {
    let mut sums: BTreeMap<&str, (String, BTreeMap<&str, Sums>)> = BTreeMap::new();
    for row in rows {
        let (_, by_model) =
            sums.entry(&row.item).or_insert_with(|| (row.domain.clone(), BTreeMap::new()));
        let (count, outcome, joules) = by_model.entry(&row.model).or_insert((0.0, 0.0, Some(0.0)));
        *count += 1.0;
        *outcome += row.score.unwrap_or_default();
        *joules = joules.zip(row.joules()).map(|(sum, more)| sum + more);
    }
    let whole = sums.into_values().filter(|(_, by_model)| by_model.len() == models.len());
    whole
        .map(|(domain, by_model)| {
            let answer = |(count, outcome, joules): Sums| Answer {
                outcome: outcome / count,
                joules: joules.map(|sum| sum / count),
            };
            Question { domain, answers: by_model.into_values().map(answer).collect() }
        })
        .collect()
}

fn smallest_adequate(questions: &[Question], models: &[&str]) -> BTreeMap<String, String> {
    let domains: BTreeSet<&str> = questions.iter().map(|one| one.domain.as_str()).collect();
    let adequate = domains.into_iter().filter_map(|domain| {
        let of_domain = || questions.iter().filter(|one| one.domain == domain);
        let right = |model: usize| of_domain().map(|one| one.answers[model].outcome).sum::<f64>();
        let joules =
            |model: usize| of_domain().map(|one| one.answers[model].joules).sum::<Option<f64>>();
        let most = (0..models.len()).map(right).fold(0.0, f64::max);
        let good = (0..models.len()).filter(|&model| most > 0.0 && right(model) >= AS_GOOD * most);
        let (model, _) = good
            .filter_map(|model| Some((model, joules(model)?)))
            .min_by(|a, b| a.1.total_cmp(&b.1))?;
        Some((domain.to_owned(), models[model].to_owned()))
    });
    adequate.collect()
}

fn oracle(questions: &[Question], best: usize, seed: u64) -> Option<Oracle> {
    /// Outcome and joules of the oracle, and joules of the best model alone.
    type Chosen = (f64, f64, f64);
    let choose = |question: &Question| -> Option<Chosen> {
        let joules: Option<Vec<f64>> = question.answers.iter().map(|one| one.joules).collect();
        let joules = joules?;
        let most = question.answers.iter().map(|one| one.outcome).fold(0.0, f64::max);
        let good = question.answers.iter().zip(&joules).filter(|(one, _)| one.outcome >= most);
        let least = good.map(|(_, joules)| *joules).fold(f64::INFINITY, f64::min);
        Some((most, least, joules[best]))
    };
    let chosen: Vec<Chosen> = questions.iter().filter_map(choose).collect();
    let saving = |drawn: &mut dyn Iterator<Item = &Chosen>| {
        let (oracle, alone) =
            drawn.fold((0.0, 0.0), |(oracle, alone), one| (oracle + one.1, alone + one.2));
        (alone > 0.0).then(|| 1.0 - oracle / alone)
    };
    let value = saving(&mut chosen.iter())?;
    let [Interval { low, high }] =
        bootstrap(&chosen, RESAMPLES, seed, |drawn| Some([saving(&mut drawn.iter().copied())?]))?;
    let count = chosen.len() as f64;
    Some(Oracle {
        accuracy: share(chosen.iter().map(|one| one.0).sum(), count)?,
        joules: chosen.iter().map(|one| one.1).sum::<f64>() / count,
        saving: Estimate { value, low, high },
    })
}

#[cfg(test)]
mod tests {
    use super::super::journal::tests::row;
    use super::*;

    fn of(model: &str, item: &str, score: f64, joules: f64) -> Row {
        let domain = if item < "c" { "low" } else { "high" };
        Row { model: model.to_owned(), domain: domain.to_owned(), ..row(item, score, joules) }
    }

    #[test]
    fn an_oracle_asks_the_cheapest_that_is_right() {
        // The small model is right in the first domain, the large one everywhere but at `d`.
        let rows = [
            of("small", "a", 1.0, 1.0),
            of("small", "b", 1.0, 1.0),
            of("small", "c", 0.0, 1.0),
            of("small", "d", 0.0, 1.0),
            of("large", "a", 1.0, 10.0),
            of("large", "b", 1.0, 10.0),
            of("large", "c", 1.0, 10.0),
            of("large", "d", 0.0, 10.0),
        ];
        let found = ensemble(&rows, 1).unwrap();
        assert_eq!((found.questions, found.best.as_str()), (4, "large"));
        assert_eq!(found.best_of_local.map(|share| share.value), Some(0.75));
        let adequate: Vec<(&str, &str)> =
            found.smallest_adequate.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(adequate, [("high", "large"), ("low", "small")]);
        // 1 + 1 + 10 + 1 of 40 joules.
        let oracle = found.oracle.unwrap();
        assert!((oracle.saving.value - 0.675).abs() < 1e-12, "{oracle:?}");
        assert!((oracle.joules - 3.25).abs() < 1e-12 && oracle.accuracy.value >= 0.75);
        assert!(oracle.saving.low < 0.675 && oracle.saving.high > 0.675);
    }

    #[test]
    fn one_model_is_no_ensemble_and_unknown_energy_no_saving() {
        assert!(ensemble(&[of("small", "a", 1.0, 1.0)], 1).is_none());
        let mut unknown = of("large", "a", 1.0, 1.0);
        unknown.energy = None;
        let found = ensemble(&[of("small", "a", 1.0, 1.0), unknown], 1).unwrap();
        assert!(found.oracle.is_none() && found.coverage.len() == 2);
    }
}
