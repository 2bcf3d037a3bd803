//! Summary of a run: accuracy, joules, watts and their ratios, each with its interval. Pure.
//!
//! Definitions of the paper: intelligence per watt is mean outcome over mean power, intelligence
//! per joule is mean outcome over mean energy; ratios of means, never means of ratios. A failed
//! request has outcome 0 and keeps its energy.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::fit::{Fit, NoFit, fit};
use super::journal::{Row, Settings};
use super::run::ModelBaseline;
use super::stats::{Estimate, Pair, quantile_of, ratio};
use crate::energy::{Quality, Source};
use crate::routing::Route;
use crate::units::{Joules, Watts};

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// UTC date.
    pub measured: String,
    pub settings: Settings,
    pub results: Vec<ModelResult>,
}

/// One model at one batch size.
#[derive(Clone, Debug, Serialize)]
pub struct ModelResult {
    pub model: String,
    pub route: Route,
    /// Requests at a time.
    pub batch: u32,
    pub questions: usize,
    pub requests: usize,
    pub failed: usize,
    /// Requests with unknown energy.
    pub energy_unknown: usize,
    pub quality: Option<Quality>,
    pub source: Option<Source>,
    /// Factors from each figure in joules to the ends of the band of the sensor or table: an error
    /// that all requests share.
    pub band: Option<[f64; 2]>,
    /// Mean outcome, 0 to 1.
    pub accuracy: Option<Estimate>,
    /// Mean marginal joules of a request.
    pub joules: Option<Estimate>,
    /// Mean over requests of joules over seconds.
    pub watts: Option<Estimate>,
    /// Intelligence per watt: mean outcome / mean watts.
    pub ipw: Option<Estimate>,
    /// Intelligence per joule, which is accuracy per joule: mean outcome / mean joules.
    pub ipj: Option<Estimate>,
    /// Mean perplexity of the model's own answers, with log-probabilities only.
    pub perplexity: Option<Estimate>,
    /// 1 / (mean perplexity · mean watts) and 1 / (mean perplexity · mean joules).
    pub ppw: Option<f64>,
    pub ppj: Option<f64>,
    /// Mean seconds from arrival to the last token.
    pub seconds: Option<Estimate>,
    pub first_token_s: Quantiles,
    pub total_s: Quantiles,
    pub prompt_tokens: f64,
    pub cached_tokens: f64,
    pub output_tokens: f64,
    pub by_domain: Vec<Part>,
    pub by_difficulty: Vec<Part>,
    pub load_joules: Option<Joules>,
    pub idle_watts: Option<Watts>,
    pub fit: Option<Fit>,
    pub no_fit: Option<String>,
}

/// Half of all requests lie below `p50`, and 95 % below `p95`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    pub p50: Option<f64>,
    pub p95: Option<f64>,
}

/// The questions of one domain or difficulty.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    pub name: String,
    pub questions: usize,
    pub accuracy: Option<Estimate>,
    pub joules: Option<Estimate>,
}

impl Summary {
    /// Summarises `rows`; `baselines` are by model.
    pub fn of(
        rows: &[Row],
        settings: Settings,
        baselines: &BTreeMap<String, ModelBaseline>,
        measured: String,
    ) -> Self {
        let mut groups: BTreeMap<(&str, u32), Vec<&Row>> = BTreeMap::new();
        for row in rows {
            groups.entry((&row.model, row.batch)).or_default().push(row);
        }
        let results = groups.iter().map(|((model, _), rows)| {
            let baseline = baselines.get(*model).copied().unwrap_or_default();
            ModelResult::of(rows, baseline, settings.seed)
        });
        let results = results.collect();
        Self { measured, settings, results }
    }
}

impl ModelResult {
    fn of(rows: &[&Row], baseline: ModelBaseline, seed: u64) -> Self {
        let first = rows[0];
        let mean = |of: fn(&Row) -> Option<f64>| mean(rows, of, seed);
        let per = |of: fn(&Row) -> Option<f64>| ratio(&pairs(rows, Row::outcome, of), seed);
        let energies = || rows.iter().filter_map(|row| row.energy);
        let known = energies().filter(|energy| energy.joules.is_some());
        let perplexity = mean(Row::perplexity);
        let over = |other: Option<Estimate>| {
            Some(1.0 / (perplexity?.value * other?.value)).filter(|ratio| ratio.is_finite())
        };
        let (joules, watts) = (mean(Row::joules), mean(Row::watts));
        let token_mean = |of: fn(&Row) -> u64| {
            rows.iter().map(|row| of(row) as f64).sum::<f64>() / rows.len() as f64
        };
        let (fit, no_fit) = match fit(rows, first.batch, seed) {
            Ok(fit) => (Some(fit), None),
            Err(reason) => (None, Some(reason)),
        };
        Self {
            model: first.model.clone(),
            route: first.route,
            batch: first.batch,
            questions: questions(rows),
            requests: rows.len(),
            failed: rows.iter().filter(|row| row.error.is_some()).count(),
            energy_unknown: rows.len() - known.clone().count(),
            quality: known.clone().map(|energy| energy.quality).max(),
            source: known.clone().map(|energy| energy.source).next(),
            band: band(rows),
            accuracy: mean(Row::outcome),
            joules,
            watts,
            ipw: per(Row::watts),
            ipj: per(Row::joules),
            perplexity,
            ppw: over(watts),
            ppj: over(joules),
            seconds: mean(|row| Some(row.total_s)),
            first_token_s: quantiles(rows, |row| row.first_token_s),
            total_s: quantiles(rows, |row| Some(row.total_s)),
            prompt_tokens: token_mean(|row| row.prompt_tokens),
            cached_tokens: token_mean(|row| row.cached_tokens),
            output_tokens: token_mean(|row| row.output_tokens),
            by_domain: parts(rows, |row| row.domain.clone(), seed),
            by_difficulty: parts(rows, |row| difficulty(row.difficulty).to_owned(), seed),
            load_joules: baseline.load_joules,
            idle_watts: baseline.idle_watts,
            fit,
            no_fit: no_fit.map(|reason: NoFit| reason.to_string()),
        }
    }
}

impl Row {
    /// A failed request counts as a wrong answer, if the question has a rule.
    fn outcome(&self) -> Option<f64> {
        self.score
    }

    fn perplexity(&self) -> Option<f64> {
        self.mean_logprob.map(|mean| (-mean).exp()).filter(|perplexity| perplexity.is_finite())
    }
}

fn difficulty(level: u8) -> &'static str {
    match level {
        1 => "easy",
        2 => "medium",
        3 => "hard",
        _ => "unrated",
    }
}

fn questions(rows: &[&Row]) -> usize {
    rows.iter().map(|row| &row.item).collect::<BTreeSet<_>>().len()
}

/// Per question: the sums of two quantities over the rows that have both.
fn pairs(
    rows: &[&Row],
    above: impl Fn(&Row) -> Option<f64>,
    below: impl Fn(&Row) -> Option<f64>,
) -> Vec<Pair> {
    let mut questions: BTreeMap<&str, Pair> = BTreeMap::new();
    for row in rows {
        if let (Some(above), Some(below)) = (above(row), below(row)) {
            let pair = questions.entry(&row.item).or_insert(Pair { above: 0.0, below: 0.0 });
            pair.above += above;
            pair.below += below;
        }
    }
    questions.into_values().collect()
}

fn mean(rows: &[&Row], of: impl Fn(&Row) -> Option<f64>, seed: u64) -> Option<Estimate> {
    ratio(&pairs(rows, of, |_| Some(1.0)), seed)
}

fn quantiles(rows: &[&Row], of: impl Fn(&Row) -> Option<f64>) -> Quantiles {
    let values: Vec<f64> = rows.iter().filter_map(|row| of(row)).collect();
    Quantiles { p50: quantile_of(values.clone(), 0.5), p95: quantile_of(values, 0.95) }
}

/// Bands add up, so the ends are ratios of sums.
fn band(rows: &[&Row]) -> Option<[f64; 2]> {
    let mut sums = [0.0; 3];
    for energy in rows.iter().filter_map(|row| row.energy) {
        if let (Some(low), Some(middle), Some(high)) = (energy.low, energy.joules, energy.high) {
            for (sum, part) in sums.iter_mut().zip([low, middle, high]) {
                *sum += part.0;
            }
        }
    }
    let [low, middle, high] = sums;
    (middle > 0.0).then(|| [low / middle, high / middle])
}

fn parts(rows: &[&Row], name: impl Fn(&Row) -> String, seed: u64) -> Vec<Part> {
    let mut groups: BTreeMap<(u8, String), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let name = name(row);
        // Difficulties in ascending order, domains alphabetically.
        let rank = if name == difficulty(row.difficulty) { row.difficulty } else { 0 };
        groups.entry((rank, name)).or_default().push(row);
    }
    let parts = groups.into_iter().map(|((_, name), rows)| Part {
        name,
        questions: questions(&rows),
        accuracy: mean(&rows, Row::outcome, seed),
        joules: mean(&rows, Row::joules, seed),
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::super::journal::tests::row;
    use super::*;

    fn result(rows: &[Row]) -> ModelResult {
        ModelResult::of(&rows.iter().collect::<Vec<_>>(), ModelBaseline::default(), 1)
    }

    fn value(estimate: Option<Estimate>) -> String {
        format!("{:.4}", estimate.unwrap().value)
    }

    #[test]
    fn the_papers_ratios_are_ratios_of_means() {
        // 2 J and 6 J in half a second each: 4 W and 12 W.
        let found = result(&[row("a", 1.0, 2.0), row("b", 0.0, 6.0)]);
        assert_eq!(
            (value(found.accuracy), value(found.joules), value(found.watts)),
            ("0.5000".into(), "4.0000".into(), "8.0000".into())
        );
        assert_eq!((value(found.ipj), value(found.ipw)), ("0.1250".into(), "0.0625".into()));
        assert_eq!(
            found.band.map(|band| band.map(|end| format!("{end:.3}"))),
            Some(["0.333".into(), "2.000".into()])
        );
        assert_eq!((found.perplexity, found.ppj), (None, None));
    }

    #[test]
    fn perplexity_is_of_the_models_own_words() {
        let mut told = row("a", 1.0, 2.0);
        told.mean_logprob = Some(-(4.0_f64).ln());
        let found = result(&[told]);
        assert_eq!(value(found.perplexity), "4.0000");
        assert_eq!(format!("{:.4} {:.4}", found.ppj.unwrap(), found.ppw.unwrap()), "0.1250 0.0625");
    }

    #[test]
    fn the_unknown_is_counted_and_is_no_zero() {
        let mut unknown = row("a", 1.0, 2.0);
        unknown.energy = None;
        let found = result(&[unknown, row("b", 1.0, 6.0)]);
        assert_eq!(
            (found.energy_unknown, value(found.joules), value(found.ipj)),
            (1, "6.0000".into(), "0.1667".into())
        );
        let mut ungraded = row("c", 1.0, 2.0);
        ungraded.score = None;
        let found = result(&[ungraded]);
        assert_eq!((found.accuracy, found.ipw, value(found.joules)), (None, None, "2.0000".into()));
    }

    #[test]
    fn parts_are_named_and_in_order() {
        let mut hard = row("a", 0.0, 4.0);
        (hard.domain, hard.difficulty) = ("alpha".into(), 3);
        let found = result(&[hard, row("b", 1.0, 2.0)]);
        let names = |parts: &[Part]| parts.iter().map(|part| part.name.clone()).collect::<Vec<_>>();
        assert_eq!(
            (names(&found.by_domain), names(&found.by_difficulty)),
            (vec!["alpha".into(), "d".into()], vec!["easy".into(), "hard".into()])
        );
    }
}
