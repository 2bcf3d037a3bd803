//! Costs of a model fitted to rows: joules and seconds per request, prompt token and output token.
//! Pure.
//!
//! Errors are cross-validated: every fifth question, with all its repeats, is predicted by a fit of
//! the other four fifths, in turn. The costs themselves come from all rows.

use std::collections::BTreeMap;

use serde::Serialize;

use super::journal::Row;
use super::least_squares::{Equation, non_negative};
use super::stats::{Interval, bootstrap, quantile_of};
use crate::energy::Tokens;
use crate::energy::prediction::estimate::RecentRatio;
use crate::energy::prediction::profile::{Cost, Linear};
use crate::routing::text::fnv1a;
use crate::units::Joules;

/// Cross-validation folds.
const FOLDS: usize = 5;
/// Three coefficients fit fewer sums to noise.
const SUMS_MIN: usize = 8;
/// Bootstrap resamplings for the intervals of the coefficients.
const RESAMPLES: usize = 400;

/// A fit and its errors, for the profile and the report.
#[derive(Clone, Debug, Serialize)]
pub struct Fit {
    pub cost: Cost,
    /// 95 % bootstrap intervals over questions of the joules of a request, a prompt token and an
    /// output token. Absent where the energy is unknown.
    pub intervals: Option<[Interval; 3]>,
    /// Number of requests (waves of a batch) predicted by a fit without them.
    pub held_out: usize,
    /// With the actual tokens.
    pub errors: Option<Errors>,
    /// With the actual tokens, corrected by the preceding answers as the gateway does: the state of
    /// the machine changes.
    pub tracked: Option<Errors>,
    /// Corrected likewise, with the tokens that the gateway expected beforehand: what a decision
    /// rests on.
    #[serde(rename = "foreseen")]
    pub predicted: Option<Errors>,
    /// The gateway's own predictions during the run, by its profile and what it learned meanwhile.
    pub gateway: Option<Errors>,
    /// Fitted and actual joules of the held-out requests.
    pub points: Vec<Point>,
}

/// Quantiles of |predicted / actual − 1|.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Errors {
    pub p50: f64,
    pub p90: f64,
}

/// One held-out request or wave.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    pub fitted: f64,
    pub actual: f64,
}

/// Why there is no fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoFit {
    #[error("{0} answers (waves of a batch count once) are too few to fit: it takes {SUMS_MIN}")]
    TooFew(usize),
    #[error("all answers are alike: the costs of prompt and output tokens cannot be separated")]
    Alike,
}

/// Tokens and joules of one request, or of one wave.
#[derive(Clone, Debug, Default)]
struct Sum {
    /// Question or wave, the same for all repeats.
    name: String,
    requests: f64,
    tokens: Tokens,
    /// Tokens that the gateway expected; `None` for a wave.
    predicted: Option<Tokens>,
    joules: f64,
}

/// Fits the rows of one model and batch size.
pub fn fit(rows: &[&Row], batch: u32, seed: u64) -> Result<Fit, NoFit> {
    let answered: Vec<&Row> = rows.iter().copied().filter(|row| row.error.is_none()).collect();
    let seconds = linear(&equations_of_seconds(&answered))?;
    let sums = sums(&answered, batch);
    let (joules, intervals) = if sums.is_empty() {
        (None, None)
    } else {
        (Some(linear(&equations(&sums))?), intervals(&sums, seed))
    };
    let LeftOut { points, tracked, predicted } = left_out(&sums);
    let ratios = || points.iter().map(|point| point.actual / point.fitted).collect::<Vec<_>>();
    let errors = Errors::of(points.iter().copied());
    let cost = Cost {
        batch,
        requests: answered.len() as u64,
        total_joules: Joules(sums.iter().map(|sum| sum.joules).sum()),
        low: quantile_of(ratios(), 0.05).unwrap_or(1.0).clamp(0.0, 1.0),
        high: quantile_of(ratios(), 0.95).unwrap_or(1.0).max(1.0),
        median_error: errors.map_or(0.0, |errors| errors.p50),
        p90_error: errors.map_or(0.0, |errors| errors.p90),
        joules,
        seconds,
    };
    Ok(Fit {
        cost,
        intervals,
        held_out: points.len(),
        errors,
        tracked: Errors::of(tracked.into_iter()),
        predicted: Errors::of(predicted.into_iter()),
        gateway: Errors::of(answered.iter().filter_map(|row| gateway_prediction(row))),
        points,
    })
}

impl Errors {
    fn of(points: impl Iterator<Item = Point>) -> Option<Self> {
        let errors: Vec<f64> =
            points.map(|point| (point.fitted / point.actual - 1.0).abs()).collect();
        Some(Self { p50: quantile_of(errors.clone(), 0.5)?, p90: quantile_of(errors, 0.9)? })
    }
}

impl Point {
    /// `None` if the ratio is undefined: a short answer may take less than a clock tick.
    fn new(fitted: f64, actual: f64) -> Option<Self> {
        (fitted > 0.0 && actual > 0.0).then_some(Self { fitted, actual })
    }
}

/// Joules that the gateway predicted, and the actual ones.
fn gateway_prediction(row: &Row) -> Option<Point> {
    Point::new(row.predicted?.joules?.0, row.joules()?)
}

/// One sum per request for batch size 1, else one per complete wave. Drops those with unknown
/// energy.
fn sums(rows: &[&Row], batch: u32) -> Vec<Sum> {
    if batch == 1 {
        return rows.iter().filter_map(|row| Sum::of(row.item.clone(), &[row])).collect();
    }
    let mut waves: BTreeMap<(u32, u32), Vec<&Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.together == batch) {
        waves.entry((row.repeat, row.wave)).or_default().push(row);
    }
    let whole = waves.into_iter().filter(|(_, wave)| wave.len() == batch as usize);
    whole.filter_map(|((_, number), wave)| Sum::of(number.to_string(), &wave)).collect()
}

impl Sum {
    fn of(name: String, rows: &[&Row]) -> Option<Self> {
        let mut sum = Self { name, ..Self::default() };
        for row in rows {
            sum.requests += 1.0;
            sum.tokens += tokens(row);
            sum.joules += row.joules()?;
        }
        if let [row] = rows {
            sum.predicted = row.predicted.map(|seen| Tokens {
                prefill: seen.prompt_tokens.saturating_sub(seen.cached_tokens),
                decode: seen.output_tokens,
            });
        }
        Some(sum)
    }

    /// Depends on the name only, so that repeats of a question share a fold.
    #[expect(clippy::cast_possible_truncation, reason = "below FOLDS")]
    fn fold(&self) -> usize {
        (fnv1a(self.name.as_bytes()) % FOLDS as u64) as usize
    }

    fn fitted(&self, joules: Linear, tokens: Tokens) -> f64 {
        joules.fixed * self.requests + joules.of_tokens(tokens)
    }
}

fn tokens(row: &Row) -> Tokens {
    Tokens {
        prefill: row.prompt_tokens.saturating_sub(row.cached_tokens),
        decode: row.output_tokens,
    }
}

fn equations<'a>(sums: impl IntoIterator<Item = &'a Sum>) -> Vec<Equation<3>> {
    let equations = sums.into_iter().filter_map(|sum| {
        let columns = [sum.requests, sum.tokens.prefill as f64, sum.tokens.decode as f64];
        Equation::relative(columns, sum.joules)
    });
    equations.collect()
}

/// Time to the first token determines the cost of prompts, the time after it that of outputs.
fn equations_of_seconds(rows: &[&Row]) -> Vec<Equation<3>> {
    let mut equations = Vec::with_capacity(2 * rows.len());
    for row in rows {
        let Tokens { prefill, decode } = tokens(row);
        let prefill = prefill as f64;
        equations.extend(Equation::relative([1.0, prefill, decode as f64], row.total_s));
        equations.extend(Equation::relative([1.0, prefill, 1.0], row.first_token_s.unwrap_or(0.0)));
    }
    equations
}

fn linear(equations: &[Equation<3>]) -> Result<Linear, NoFit> {
    if equations.len() < SUMS_MIN {
        return Err(NoFit::TooFew(equations.len()));
    }
    let per_token = |[_, prefill, decode]: &[f64; 3]| prefill + decode > 0.0;
    // With answers of nearly one length, all of the cost may fall on their number; it is then put
    // on their tokens.
    let without_fixed = || {
        let columns = |[_, prefill, decode]: [f64; 3]| [0.0, prefill, decode];
        let equations =
            equations.iter().map(|one| Equation { columns: columns(one.columns), ..*one });
        non_negative(&equations.collect::<Vec<_>>())
    };
    let found = non_negative(equations).filter(per_token);
    let found = found.or_else(|| without_fixed().filter(per_token));
    let [fixed, prefill_token, decode_token] = found.ok_or(NoFit::Alike)?;
    Ok(Linear { fixed, prefill_token, decode_token })
}

/// Predictions of the held-out sums.
#[derive(Default)]
struct LeftOut {
    points: Vec<Point>,
    tracked: Vec<Point>,
    predicted: Vec<Point>,
}

/// Predicts each sum by a fit without its fold, in the order of the run.
fn left_out(sums: &[Sum]) -> LeftOut {
    let fits: Vec<Option<Linear>> = (0..FOLDS)
        .map(|fold| linear(&equations(sums.iter().filter(|sum| sum.fold() != fold))).ok())
        .collect();
    let all: f64 = sums.iter().map(|sum| sum.joules).sum();
    let mut recent = RecentRatio::as_expected(all, sums.len() as f64);
    let mut left_out = LeftOut::default();
    for sum in sums {
        let Some(joules) = fits.get(sum.fold()).copied().flatten() else { continue };
        let fitted = sum.fitted(joules, sum.tokens);
        let ratio = recent.ratio().unwrap_or(1.0);
        left_out.points.extend(Point::new(fitted, sum.joules));
        left_out.tracked.extend(Point::new(fitted * ratio, sum.joules));
        let predicted = sum.predicted.map(|tokens| sum.fitted(joules, tokens) * ratio);
        left_out
            .predicted
            .extend(predicted.and_then(|predicted| Point::new(predicted, sum.joules)));
        recent.add(sum.joules, fitted);
    }
    left_out
}

/// Bootstrap intervals of the coefficients over questions.
fn intervals(sums: &[Sum], seed: u64) -> Option<[Interval; 3]> {
    let mut questions: BTreeMap<&str, Vec<&Sum>> = BTreeMap::new();
    for sum in sums {
        questions.entry(&sum.name).or_default().push(sum);
    }
    let questions: Vec<Vec<&Sum>> = questions.into_values().collect();
    bootstrap(&questions, RESAMPLES, seed, |drawn| {
        let found = linear(&equations(drawn.iter().flat_map(|sums| sums.iter().copied()))).ok()?;
        Some([found.fixed, found.prefill_token, found.decode_token])
    })
}

#[cfg(test)]
mod tests {
    use super::super::journal::tests;
    use super::*;
    use crate::energy::EnergyFigure;

    /// 64 questions to a model that takes 0.5 J, 0.01 J a prompt token and 0.05 J an output token,
    /// with a few percent of noise. The split between requests of a wave is as wrong as possible.
    fn rows(batch: u32) -> Vec<Row> {
        let mut random = fastrand::Rng::with_seed(3);
        let mut rows: Vec<Row> = (0..64_u32)
            .map(|number| {
                let (prompt, output) = (random.u64(20..300), random.u64(1..100));
                let noise = 0.95 + 0.1 * random.f64();
                let joules = (0.5 + 0.01 * (prompt - 10) as f64 + 0.05 * output as f64) * noise;
                let mut row = tests::row(&format!("q{number}"), 1.0, joules);
                (row.prompt_tokens, row.output_tokens) = (prompt, output);
                row.first_token_s = Some(0.02 + 0.001 * (prompt - 10) as f64 + 0.01);
                row.total_s = 0.02 + 0.001 * (prompt - 10) as f64 + 0.01 * output as f64;
                (row.batch, row.wave, row.together) = (batch, number / batch, batch);
                row
            })
            .collect();
        for wave in rows.chunks_mut(batch as usize) {
            let all: f64 = wave.iter().filter_map(Row::joules).sum();
            for (place, row) in wave.iter_mut().enumerate() {
                let part = if batch > 1 && place == 0 {
                    all
                } else if batch > 1 {
                    0.0
                } else {
                    continue;
                };
                let energy = row.energy.unwrap();
                row.energy = Some(EnergyFigure { joules: Some(Joules(part)), ..energy });
            }
        }
        rows
    }

    fn fitted(batch: u32) -> Fit {
        let rows = rows(batch);
        fit(&rows.iter().collect::<Vec<_>>(), batch, 1).unwrap()
    }

    #[test]
    fn the_costs_behind_the_rows_are_found_alone_and_in_waves() {
        for batch in [1, 4] {
            let Fit { cost, held_out, errors, intervals, .. } = fitted(batch);
            let joules = cost.joules.unwrap();
            assert!((joules.prefill_token - 0.01).abs() < 0.001, "{batch}: {joules:?}");
            assert!((joules.decode_token - 0.05).abs() < 0.005, "{batch}: {joules:?}");
            assert!(cost.median_error < 0.05 && cost.low <= 1.0 && cost.high > 1.0, "{cost:?}");
            assert_eq!(held_out, 64 / batch as usize, "each is left out once");
            assert!(errors.is_some_and(|errors| errors.p50 <= errors.p90), "{errors:?}");
            let [_, prefill, decode] = intervals.unwrap();
            assert!(prefill.low < 0.01 && 0.01 < prefill.high, "{batch}: {prefill:?}");
            assert!(decode.low < 0.05 && 0.05 < decode.high, "{batch}: {decode:?}");
        }
        let seconds = fitted(1).cost.seconds;
        assert!(
            (seconds.prefill_token - 0.001).abs() < 1e-6
                && (seconds.decode_token - 0.01).abs() < 1e-6,
            "{seconds:?}"
        );
    }

    #[test]
    fn a_machine_that_becomes_slow_is_followed_and_a_wave_that_was_cut_off_is_no_wave() {
        let mut rows = rows(1);
        for row in &mut rows[32..] {
            let energy = row.energy.unwrap();
            let joules = energy.joules.map(|joules| Joules(joules.0 * 1.6));
            row.energy = Some(EnergyFigure { joules, ..energy });
        }
        let found = fit(&rows.iter().collect::<Vec<_>>(), 1, 1).unwrap();
        let (costs_alone, tracked) = (found.errors.unwrap(), found.tracked.unwrap());
        assert!(costs_alone.p50 > 0.15 && tracked.p50 < 0.08, "{costs_alone:?} {tracked:?}");
        let mut waves = self::rows(4);
        for row in &mut waves[..4] {
            row.together = 2;
        }
        assert_eq!(fit(&waves.iter().collect::<Vec<_>>(), 4, 1).unwrap().held_out, 15);
    }

    #[test]
    fn answers_that_differ_by_noise_alone_still_have_a_cost_per_token() {
        let rows: Vec<Row> = (0..20_u32)
            .map(|number| {
                // Longer answers take less, by chance.
                let joules = 2.0 - f64::from(number) * 0.01;
                let mut row = tests::row(&format!("q{number}"), 1.0, joules);
                row.prompt_tokens = 40 + u64::from(number % 3);
                row.output_tokens = 12 + u64::from(number / 10);
                row
            })
            .collect();
        let cost = fit(&rows.iter().collect::<Vec<_>>(), 1, 1).unwrap().cost;
        let joules = cost.joules.unwrap().of(Tokens { prefill: 31, decode: 12 });
        assert!((1.7..2.1).contains(&joules), "{cost:?}");
    }

    #[test]
    fn unknown_energy_gives_seconds_only_and_too_little_gives_nothing() {
        let mut rows = rows(1);
        for row in &mut rows {
            row.energy = None;
        }
        let cost = fit(&rows.iter().collect::<Vec<_>>(), 1, 1).unwrap().cost;
        assert!(cost.joules.is_none() && cost.seconds.decode_token > 0.0);
        let few = fit(&rows.iter().take(3).collect::<Vec<_>>(), 1, 1);
        assert!(matches!(few, Err(NoFit::TooFew(_))));
    }
}
