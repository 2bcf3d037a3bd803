//! From rows to a model's costs: joules and seconds per request, per prompt token and per output token. Pure.
//!
//! One question in five is held out, with all its repeats, and the errors are those of the questions held out.

use std::collections::BTreeMap;

use serde::Serialize;

use super::journal::Row;
use super::least_squares::{Equation, non_negative};
use super::stats::quantile_of;
use crate::energy::Tokens;
use crate::energy::profile::{Cost, Linear};
use crate::routing::text::fnv1a;
use crate::units::Joules;

/// One question in so many is held out.
const HELD_OUT: u64 = 5;
/// Fewer sums than this fit three coefficients to noise.
const SUMS_MIN: usize = 8;

/// A fit and how it did, for the profile and the report.
#[derive(Clone, Debug, Serialize)]
pub struct Fit {
    pub cost: Cost,
    /// Held-out requests, or waves, the errors come from.
    pub held_out: usize,
    /// Fitted and actual joules of what was held out.
    pub points: Vec<Point>,
}

/// One request or wave that was held out.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    pub fitted: f64,
    pub actual: f64,
}

/// Why nothing was fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoFit {
    #[error("{0} answers (waves of a batch count once) are too few to fit: it takes {SUMS_MIN}")]
    TooFew(usize),
    #[error(
        "all answers are alike: the cost of a prompt token cannot be told from that of an output token"
    )]
    Alike,
}

/// What one request took, or one wave of them together.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    requests: f64,
    tokens: Tokens,
    /// None once a part is unknown.
    joules: Option<f64>,
    held_out: bool,
}

/// Fits the rows of one model and batch.
pub fn fit(rows: &[&Row], batch: u32) -> Result<Fit, NoFit> {
    let answered: Vec<&Row> = rows.iter().copied().filter(|row| row.error.is_none()).collect();
    let sums = sums(&answered, batch);
    let known: Vec<&Sum> = sums.iter().filter(|sum| sum.joules.is_some()).collect();
    let seconds = seconds(&answered)?;
    let joules = if known.is_empty() { None } else { Some(joules(&known)?) };
    let points = joules.map_or_else(Vec::new, |joules| points(joules, &known));
    let ratios = || points.iter().map(|point| point.actual / point.fitted).collect::<Vec<_>>();
    let errors = points.iter().map(|point| (point.fitted / point.actual - 1.0).abs()).collect();
    let cost = Cost {
        batch,
        requests: answered.len() as u64,
        total_joules: Joules(known.iter().filter_map(|sum| sum.joules).sum()),
        low: quantile_of(ratios(), 0.05).unwrap_or(1.0).clamp(0.0, 1.0),
        high: quantile_of(ratios(), 0.95).unwrap_or(1.0).max(1.0),
        median_error: quantile_of(errors, 0.5).unwrap_or(0.0),
        joules,
        seconds,
    };
    Ok(Fit { cost, held_out: points.len(), points })
}

/// Alone, every request is a sum of its own; several at a time, every wave is. A wave whose questions are only partly
/// held out is not held out.
fn sums(rows: &[&Row], batch: u32) -> Vec<Sum> {
    if batch == 1 {
        return rows.iter().map(|row| Sum::of(&[row], is_held_out(&row.item))).collect();
    }
    let mut waves: BTreeMap<(u32, u32), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        waves.entry((row.repeat, row.wave)).or_default().push(row);
    }
    let whole = waves.into_iter().filter(|(_, wave)| wave.len() == batch as usize);
    whole.map(|((_, number), wave)| Sum::of(&wave, u64::from(number) % HELD_OUT == 0)).collect()
}

impl Sum {
    fn of(rows: &[&Row], held_out: bool) -> Self {
        let mut sum = Self { joules: Some(0.0), held_out, ..Self::default() };
        for row in rows {
            sum.requests += 1.0;
            sum.tokens += tokens(row);
            sum.joules = sum.joules.zip(row.joules()).map(|(sum, one)| sum + one);
        }
        sum
    }

    fn columns(&self) -> [f64; 3] {
        [self.requests, self.tokens.prefill as f64, self.tokens.decode as f64]
    }

    fn fitted(&self, joules: Linear) -> f64 {
        joules.fixed * self.requests + joules.of_tokens(self.tokens)
    }
}

fn tokens(row: &Row) -> Tokens {
    Tokens {
        prefill: row.prompt_tokens.saturating_sub(row.cached_tokens),
        decode: row.output_tokens,
    }
}

/// By the question's name, so that neither repeats nor the order of asking matter.
fn is_held_out(item: &str) -> bool {
    fnv1a(item.as_bytes()).is_multiple_of(HELD_OUT)
}

fn joules(sums: &[&Sum]) -> Result<Linear, NoFit> {
    let held_in = sums.iter().filter(|sum| !sum.held_out);
    let equations: Vec<_> = held_in
        .filter_map(|sum| Equation::relative(sum.columns(), sum.joules.unwrap_or(0.0)))
        .collect();
    linear(&equations)
}

/// Time to the first token tells what prompts take, and the time after it what output takes.
fn seconds(rows: &[&Row]) -> Result<Linear, NoFit> {
    let mut equations = Vec::with_capacity(2 * rows.len());
    for row in rows.iter().filter(|row| !is_held_out(&row.item)) {
        let Tokens { prefill, decode } = tokens(row);
        let prefill = prefill as f64;
        equations.extend(Equation::relative([1.0, prefill, decode as f64], row.total_s));
        equations.extend(Equation::relative([1.0, prefill, 1.0], row.first_token_s.unwrap_or(0.0)));
    }
    linear(&equations)
}

fn linear(equations: &[Equation<3>]) -> Result<Linear, NoFit> {
    if equations.len() < SUMS_MIN {
        return Err(NoFit::TooFew(equations.len()));
    }
    let [fixed, prefill_token, decode_token] = non_negative(equations).ok_or(NoFit::Alike)?;
    if prefill_token + decode_token > 0.0 {
        Ok(Linear { fixed, prefill_token, decode_token })
    } else {
        Err(NoFit::Alike)
    }
}

fn points(joules: Linear, sums: &[&Sum]) -> Vec<Point> {
    let held_out = sums.iter().filter(|sum| sum.held_out);
    let points = held_out.filter_map(|sum| {
        let (fitted, actual) = (sum.fitted(joules), sum.joules?);
        // A clock tick may be longer than a short answer; nothing can be said of a zero.
        (fitted > 0.0 && actual > 0.0).then_some(Point { fitted, actual })
    });
    points.collect()
}

#[cfg(test)]
mod tests {
    use super::super::journal::tests;
    use super::*;
    use crate::energy::EnergyFigure;

    /// 60 questions of a model that takes 0.5 J, 0.01 J a prompt token and 0.05 J an output token, with a few percent of
    /// noise; the split between requests of a wave is as wrong as can be.
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
                (row.batch, row.wave) = (batch, number / batch);
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
        fit(&rows.iter().collect::<Vec<_>>(), batch).unwrap()
    }

    #[test]
    fn the_costs_behind_the_rows_are_found_alone_and_in_waves() {
        for batch in [1, 4] {
            let Fit { cost, held_out, .. } = fitted(batch);
            let joules = cost.joules.unwrap();
            assert!((joules.prefill_token - 0.01).abs() < 0.001, "{batch}: {joules:?}");
            assert!((joules.decode_token - 0.05).abs() < 0.005, "{batch}: {joules:?}");
            assert!(cost.median_error < 0.05 && cost.low <= 1.0 && cost.high > 1.0, "{cost:?}");
            assert!(held_out > 2, "{batch}: {held_out}");
        }
        let seconds = fitted(1).cost.seconds;
        assert!(
            (seconds.prefill_token - 0.001).abs() < 1e-6
                && (seconds.decode_token - 0.01).abs() < 1e-6,
            "{seconds:?}"
        );
    }

    #[test]
    fn unknown_energy_gives_seconds_only_and_too_little_gives_nothing() {
        let mut rows = rows(1);
        for row in &mut rows {
            row.energy = None;
        }
        let cost = fit(&rows.iter().collect::<Vec<_>>(), 1).unwrap().cost;
        assert!(cost.joules.is_none() && cost.seconds.decode_token > 0.0);
        let few = fit(&rows.iter().take(3).collect::<Vec<_>>(), 1);
        assert!(matches!(few, Err(NoFit::TooFew(_))));
    }
}
