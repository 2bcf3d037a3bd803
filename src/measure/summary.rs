//! Summary of a run: accuracy, joules, watts and their ratios, each with its interval. Pure.
//!
//! Definitions of the paper: intelligence per watt is mean outcome over mean power, intelligence
//! per joule is mean outcome over mean energy; ratios of means, never means of ratios. The paper's
//! power is that of the whole device, idle included: the total figures. A failed request is outside
//! every figure and only counted.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::ensemble::{Ensemble, ensemble};
use super::fit::{Fit, NoFit, fit};
use super::journal::{Row, Settings};
use super::run::ModelBaseline;
use super::stats::{Estimate, Pair, deviation, inverse_product, quantile_of, ratio, share};
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
    /// All models together; absent for one.
    pub ensemble: Option<Ensemble>,
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
    /// Requests without an answer, which are in no other figure.
    pub failed: usize,
    /// Answers with unknown energy.
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
    /// The same figures with the idle energy of the time; absent where that is not known.
    pub with_idle: Option<WithIdle>,
    /// Standard deviations over repeats of the whole suite; absent for one.
    pub over_repeats: Option<OverRepeats>,
    /// Mean perplexity of the model's own answers, with log-probabilities only.
    pub perplexity: Option<Estimate>,
    /// 1 / (mean perplexity · mean watts) and 1 / (mean perplexity · mean joules).
    pub ppw: Option<Estimate>,
    pub ppj: Option<Estimate>,
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

/// Figures of the paper's definition: all energy of the devices while a request was open.
#[derive(Clone, Debug, Serialize)]
pub struct WithIdle {
    pub joules: Option<Estimate>,
    /// Mean power of the devices while requests ran, all that ran together counted once.
    pub watts: Option<Estimate>,
    pub ipw: Option<Estimate>,
    pub ipj: Option<Estimate>,
}

/// One standard deviation of each figure over repeats.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct OverRepeats {
    pub repeats: usize,
    pub accuracy: Option<f64>,
    pub joules: Option<f64>,
    pub ipw: Option<f64>,
    pub ipj: Option<f64>,
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
    pub ipw: Option<Estimate>,
    pub ipj: Option<Estimate>,
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
        let (results, ensemble) = (results.collect(), ensemble(rows, settings.seed));
        Self { measured, settings, results, ensemble }
    }
}

impl ModelResult {
    fn of(all: &[&Row], baseline: ModelBaseline, seed: u64) -> Self {
        let first = all[0];
        let answered: Vec<&Row> = all.iter().copied().filter(|row| row.error.is_none()).collect();
        let rows = answered.as_slice();
        let energies = || rows.iter().filter_map(|row| row.energy);
        let known = energies().filter(|energy| energy.joules.is_some());
        let token_mean = |of: fn(&Row) -> u64| {
            rows.iter().map(|row| of(row) as f64).sum::<f64>() / rows.len().max(1) as f64
        };
        let (fit, no_fit) = match fit(rows, first.batch, seed) {
            Ok(fit) => (Some(fit), None),
            Err(reason) => (None, Some(reason)),
        };
        Self {
            model: first.model.clone(),
            route: first.route,
            batch: first.batch,
            questions: questions(all),
            requests: all.len(),
            failed: all.len() - rows.len(),
            energy_unknown: rows.len() - known.clone().count(),
            quality: known.clone().map(|energy| energy.quality).max(),
            source: known.clone().map(|energy| energy.source).next(),
            band: band(rows),
            accuracy: accuracy(rows),
            joules: mean(rows, Row::joules, seed),
            watts: mean(rows, Row::watts, seed),
            ipw: intelligence_per(rows, Row::watts, seed),
            ipj: intelligence_per(rows, Row::joules, seed),
            with_idle: with_idle(rows, seed),
            over_repeats: over_repeats(rows),
            perplexity: mean(rows, Row::perplexity, seed),
            ppw: per_perplexity(rows, Row::watts, seed),
            ppj: per_perplexity(rows, Row::joules, seed),
            seconds: mean(rows, |row| Some(row.total_s), seed),
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

/// Mean outcome with its Wilson interval over questions: repeats of a question are alike.
fn accuracy(rows: &[&Row]) -> Option<Estimate> {
    let questions = pairs(rows, Row::outcome, |_| Some(1.0));
    let shares: f64 = questions.iter().map(|pair| pair.above / pair.below).sum();
    let even = share(shares, questions.len() as f64)?;
    let sums = questions
        .iter()
        .fold((0.0, 0.0), |(above, below), pair| (above + pair.above, below + pair.below));
    Some(Estimate { value: sums.0 / sums.1, ..even })
}

/// Mean outcome over the mean of something. Where all outcomes are alike, a bootstrap would call
/// the outcome certain: its Wilson interval counts there.
fn intelligence_per(
    rows: &[&Row],
    of: impl Fn(&Row) -> Option<f64>,
    seed: u64,
) -> Option<Estimate> {
    let pairs = pairs(rows, Row::outcome, of);
    let found = ratio(&pairs, seed)?;
    let outcome = accuracy(rows)?;
    let sure = outcome.value <= 0.0 || outcome.value >= 1.0;
    let cost =
        if outcome.value > 0.0 { outcome.value / found.value } else { mean_cost(&pairs, rows) };
    if !sure || cost <= 0.0 || !cost.is_finite() {
        return Some(found);
    }
    let (low, high) = (found.low.min(outcome.low / cost), found.high.max(outcome.high / cost));
    Some(Estimate { low, high, ..found })
}

fn mean_cost(pairs: &[Pair], rows: &[&Row]) -> f64 {
    let graded = rows.iter().filter(|row| row.outcome().is_some()).count();
    pairs.iter().map(|pair| pair.below).sum::<f64>() / graded.max(1) as f64
}

/// `1 / (mean perplexity · mean cost)` over the rows that have both.
fn per_perplexity(rows: &[&Row], of: impl Fn(&Row) -> Option<f64>, seed: u64) -> Option<Estimate> {
    let mut questions: BTreeMap<&str, (Pair, Pair)> = BTreeMap::new();
    for row in rows {
        if let (Some(perplexity), Some(cost)) = (row.perplexity(), of(row)) {
            let zero = Pair { above: 0.0, below: 0.0 };
            let (a, b) = questions.entry(&row.item).or_insert((zero, zero));
            (a.above, a.below) = (a.above + perplexity, a.below + 1.0);
            (b.above, b.below) = (b.above + cost, b.below + 1.0);
        }
    }
    inverse_product(&questions.into_values().collect::<Vec<_>>(), seed)
}

/// The figures with idle energy; `None` if no row has it.
fn with_idle(rows: &[&Row], seed: u64) -> Option<WithIdle> {
    let total = |row: &Row| row.total_joules.map(|joules| joules.0);
    let joules = mean(rows, total, seed)?;
    // The power of the devices is what all requests of a wave used in the wave's time.
    let mut waves: BTreeMap<(u32, u32), (f64, f64)> = BTreeMap::new();
    for row in rows {
        if let Some(joules) = total(row) {
            let (sum, longest) = waves.entry((row.repeat, row.wave)).or_default();
            (*sum, *longest) = (*sum + joules, longest.max(row.total_s));
        }
    }
    let watts = |row: &Row| {
        total(row)?;
        let (joules, seconds) = waves.get(&(row.repeat, row.wave))?;
        Some(joules / seconds).filter(|watts| watts.is_finite())
    };
    Some(WithIdle {
        joules: Some(joules),
        watts: mean(rows, watts, seed),
        ipw: intelligence_per(rows, watts, seed),
        ipj: intelligence_per(rows, total, seed),
    })
}

fn over_repeats(rows: &[&Row]) -> Option<OverRepeats> {
    let mut repeats: BTreeMap<u32, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        repeats.entry(row.repeat).or_default().push(row);
    }
    if repeats.len() < 2 {
        return None;
    }
    let of = |figure: &dyn Fn(&[&Row]) -> Option<f64>| {
        let figures: Option<Vec<f64>> = repeats.values().map(|rows| figure(rows)).collect();
        deviation(&figures?)
    };
    let sum = |rows: &[&Row], of: fn(&Row) -> Option<f64>| {
        rows.iter().map(|row| of(row)).sum::<Option<f64>>()
    };
    let per = |rows: &[&Row], of: fn(&Row) -> Option<f64>| {
        Some(sum(rows, Row::outcome)? / sum(rows, of)?)
    };
    Some(OverRepeats {
        repeats: repeats.len(),
        accuracy: of(&|rows| Some(sum(rows, Row::outcome)? / rows.len() as f64)),
        joules: of(&|rows| Some(sum(rows, Row::joules)? / rows.len() as f64)),
        ipw: of(&|rows| per(rows, Row::watts)),
        ipj: of(&|rows| per(rows, Row::joules)),
    })
}

impl Row {
    /// 1 right, 0 wrong; `None` for a question without a rule.
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
        accuracy: accuracy(&rows),
        joules: mean(&rows, Row::joules, seed),
        ipw: intelligence_per(&rows, Row::watts, seed),
        ipj: intelligence_per(&rows, Row::joules, seed),
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

    /// Accuracy counted failures, and the means and ratios of energy did not.
    #[test]
    fn a_failed_request_is_outside_every_figure() {
        let answered = [row("a", 1.0, 2.0), row("b", 0.0, 6.0)];
        let mut failed = row("c", 0.0, 9.0);
        (failed.error, failed.energy) = (Some("does not fit".to_owned()), None);
        let (with, without) =
            (result(&[answered[0].clone(), answered[1].clone(), failed]), result(&answered));
        assert_eq!((with.failed, with.requests, with.energy_unknown), (1, 3, 0));
        assert_eq!(
            (with.accuracy, with.joules, with.watts),
            (without.accuracy, without.joules, without.watts)
        );
        assert_eq!((with.ipj, with.ipw), (without.ipj, without.ipw));
        let (accuracy, joules, ipj) =
            (with.accuracy.unwrap(), with.joules.unwrap(), with.ipj.unwrap());
        assert!((accuracy.value / joules.value - ipj.value).abs() < 1e-12, "one row, one ratio");
    }

    #[test]
    fn the_papers_power_is_that_of_the_devices_idle_included() {
        // Two requests of a wave, each with 4 and 12 J in all, in half a second.
        let found = result(&[row("a", 1.0, 2.0), row("b", 0.0, 6.0)]);
        let idle = found.with_idle.unwrap();
        assert_eq!((value(idle.joules), value(idle.watts)), ("8.0000".into(), "32.0000".into()));
        assert_eq!((value(idle.ipj), value(idle.ipw)), ("0.0625".into(), "0.0156".into()));
        let mut unknown = row("a", 1.0, 2.0);
        unknown.total_joules = None;
        assert!(result(&[unknown]).with_idle.is_none());
    }

    #[test]
    fn all_right_of_three_is_not_certain() {
        let found = result(&["a", "b", "c"].map(|item| row(item, 1.0, 2.0)));
        let (accuracy, ipj) = (found.accuracy.unwrap(), found.ipj.unwrap());
        assert!((accuracy.low - 0.4385).abs() < 1e-4 && accuracy.high >= 1.0, "{accuracy:?}");
        assert!((ipj.low - accuracy.low / 2.0).abs() < 1e-9, "{ipj:?}");
        let none = result(&["a", "b", "c"].map(|item| row(item, 0.0, 2.0)));
        assert!(none.ipj.unwrap().high > 0.25, "{:?}", none.ipj);
    }

    #[test]
    fn repeats_show_how_far_a_run_moves_each_figure() {
        let mut again = row("a", 0.0, 4.0);
        again.repeat = 1;
        let spread = result(&[row("a", 1.0, 2.0), again]).over_repeats.unwrap();
        assert_eq!((spread.repeats, spread.joules), (2, Some(2.0_f64.sqrt())));
        assert!(result(&[row("a", 1.0, 2.0)]).over_repeats.is_none());
    }

    #[test]
    fn perplexity_is_of_the_models_own_words() {
        let mut told = row("a", 1.0, 2.0);
        told.mean_logprob = Some(-(4.0_f64).ln());
        let found = result(&[told]);
        assert_eq!(value(found.perplexity), "4.0000");
        assert_eq!((value(found.ppj), value(found.ppw)), ("0.1250".into(), "0.0625".into()));
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
