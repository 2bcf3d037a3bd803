//! Runs of `wattgate measure` side by side: other machines, dates, builds or models. Pure, but for
//! the reading of a run's folder.
//!
//! Differences are paired: over the questions that both runs answered, so that the choice of
//! questions moves both sides alike.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::journal::{self, JournalError, Row, Settings};
use super::stats::{Estimate, Interval, bootstrap};
use super::summary::{ModelResult, Summary};
use super::table::digits;

/// Several runs, and how each differs from the first.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub lines: Vec<Line>,
}

/// One model of one run at one batch size.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Name of the run's folder.
    pub run: String,
    pub measured: String,
    pub machine: String,
    pub build: String,
    pub suite: String,
    pub result: ModelResult,
    /// From the first run's line of the same model and batch, else from its first line; absent for
    /// those themselves and for another suite.
    pub difference: Option<Difference>,
}

/// A line relative to another, with 95 % intervals over common questions.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Difference {
    pub questions: usize,
    /// Difference of the shares of right answers.
    pub accuracy: Option<Estimate>,
    /// Ratio of mean joules.
    pub joules: Option<Estimate>,
    /// Ratio of intelligence per joule.
    pub ipj: Option<Estimate>,
}

/// A run as it lies in a folder.
#[derive(Clone, Debug)]
pub struct Run {
    pub name: String,
    pub measured: String,
    pub settings: Settings,
    pub rows: Vec<Row>,
}

impl Run {
    pub fn read(dir: &Path) -> Result<Self, JournalError> {
        let (settings, rows, measured) = journal::read(dir)?;
        let name = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { name, measured, settings, rows })
    }

    fn rows_of(&self, model: &str, batch: u32) -> Vec<&Row> {
        let answered = self.rows.iter().filter(|row| row.error.is_none());
        answered.filter(|row| row.model == model && row.batch == batch).collect()
    }
}

impl Comparison {
    pub fn of(runs: &[Run]) -> Self {
        let mut lines: Vec<Line> = Vec::new();
        let Some(first) = runs.first() else { return Self { lines } };
        let mut of_first = usize::MAX;
        for (index, run) in runs.iter().enumerate() {
            let (settings, measured) = (run.settings.clone(), run.measured.clone());
            let summary = Summary::of(&run.rows, settings, &BTreeMap::new(), measured);
            for result in summary.results {
                let base = lines.iter().take(of_first).find(|line| {
                    line.result.model == result.model && line.result.batch == result.batch
                });
                let base = base.or(lines.first()).map(|line| &line.result);
                let same_suite = run.settings.suite_sha256 == first.settings.suite_sha256;
                let base =
                    base.filter(|base| same_suite && (index > 0 || base.model != result.model));
                let difference = base.and_then(|base| {
                    let seed = first.settings.seed;
                    let (before, after) = (
                        first.rows_of(&base.model, base.batch),
                        run.rows_of(&result.model, result.batch),
                    );
                    difference(&before, &after, seed)
                });
                lines.push(Line {
                    run: run.name.clone(),
                    measured: run.measured.clone(),
                    machine: run.settings.machine.to_string(),
                    build: run.settings.build.clone(),
                    suite: run.settings.suite.clone(),
                    result,
                    difference,
                });
            }
            of_first = of_first.min(lines.len());
        }
        Self { lines }
    }
}

/// Sums of one question: rows, right answers, joules (`None` if one is unknown).
#[derive(Clone, Copy, Default)]
struct Sums {
    rows: f64,
    right: Option<f64>,
    joules: Option<f64>,
}

fn by_question<'a>(rows: &[&'a Row]) -> BTreeMap<&'a str, Sums> {
    let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
    for row in rows {
        let zero = Sums { rows: 0.0, right: Some(0.0), joules: Some(0.0) };
        let sum = sums.entry(&row.item).or_insert(zero);
        sum.rows += 1.0;
        sum.right = sum.right.zip(row.score).map(|(sum, one)| sum + one);
        sum.joules = sum.joules.zip(row.joules()).map(|(sum, one)| sum + one);
    }
    sums
}

/// A figure of the questions drawn.
type Figure<'a> = dyn Fn(&[&(Sums, Sums)]) -> Option<f64> + 'a;

fn difference(before: &[&Row], after: &[&Row], seed: u64) -> Option<Difference> {
    const RESAMPLES: usize = 2000;
    let (before, after) = (by_question(before), by_question(after));
    let pairs: Vec<(Sums, Sums)> =
        before.iter().filter_map(|(item, sums)| Some((*sums, *after.get(item)?))).collect();
    if pairs.is_empty() {
        return None;
    }
    let estimate = |figure: &Figure<'_>| {
        let value = figure(&pairs.iter().collect::<Vec<_>>())?;
        let [Interval { low, high }] =
            bootstrap(&pairs, RESAMPLES, seed, |drawn| Some([figure(drawn)?]))?;
        Some(Estimate { value, low, high })
    };
    let mean =
        |drawn: &[&(Sums, Sums)], side: fn(&(Sums, Sums)) -> Sums, of: fn(Sums) -> Option<f64>| {
            let sum: Option<f64> = drawn.iter().map(|pair| of(side(pair))).sum();
            let rows: f64 = drawn.iter().map(|pair| side(pair).rows).sum();
            Some(sum? / rows)
        };
    let ratio = |drawn: &[&(Sums, Sums)], of: fn(Sums) -> Option<f64>| {
        let ratio = mean(drawn, |pair| pair.1, of)? / mean(drawn, |pair| pair.0, of)?;
        ratio.is_finite().then_some(ratio)
    };
    Some(Difference {
        questions: pairs.len(),
        accuracy: estimate(&|drawn| {
            let right: fn(Sums) -> Option<f64> = |sums| sums.right;
            Some(mean(drawn, |pair| pair.1, right)? - mean(drawn, |pair| pair.0, right)?)
        }),
        joules: estimate(&|drawn| ratio(drawn, |sums| sums.joules)),
        ipj: estimate(&|drawn| {
            Some(ratio(drawn, |sums| sums.right)? / ratio(drawn, |sums| sums.joules)?)
        }),
    })
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        let header = [
            "run",
            "measured",
            "model",
            "batch",
            "accuracy",
            "J",
            "J total",
            "IPJ",
            "IPW total",
            "energy is",
            "Δ accuracy",
            "J ×",
            "IPJ ×",
        ];
        table.load_style(NOTHING).set_header(header);
        for line in &self.lines {
            table.add_row(cells(line));
        }
        for column in table.column_iter_mut().skip(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{}\n", table.trim_fmt())?;
        let mut named: Vec<&str> = Vec::new();
        for line in self.lines.iter().filter(|line| {
            let new = !named.contains(&line.run.as_str());
            named.push(&line.run);
            new
        }) {
            writeln!(
                f,
                "{}: {}; build {}; suite {}",
                line.run, line.machine, line.build, line.suite
            )?;
        }
        write!(
            f,
            "\nΔ and × are relative to the first run's line of the same model, else to its first line, over the questions of both; \
             in brackets 95 %\nintervals. Sensors of different machines have errors of their own: their bands decide, not the intervals."
        )
    }
}

fn cells(line: &Line) -> Vec<String> {
    let none = || "–".to_owned();
    let result = &line.result;
    let total = result.with_idle.as_ref();
    let show = |estimate: Option<Estimate>| estimate.map_or_else(none, |one| digits(one.value));
    let percent = |estimate: Estimate| format!("{:.1} %", estimate.value * 100.0);
    let times = |estimate: Option<Estimate>| {
        estimate.map_or_else(none, |Estimate { value, low, high }| {
            format!("{} ({} to {})", digits(value), digits(low), digits(high))
        })
    };
    let difference = line.difference;
    let points = |Estimate { value, low, high }: Estimate| {
        format!("{:+.1} ({:+.1} to {:+.1})", value * 100.0, low * 100.0, high * 100.0)
    };
    vec![
        line.run.clone(),
        line.measured.clone(),
        result.model.clone(),
        result.batch.to_string(),
        result.accuracy.map_or_else(none, percent),
        show(result.joules),
        show(total.and_then(|total| total.joules)),
        show(result.ipj),
        show(total.and_then(|total| total.ipw)),
        result.quality.map_or("unknown", |quality| quality.label()).to_owned(),
        difference.and_then(|one| one.accuracy).map_or_else(none, points),
        times(difference.and_then(|one| one.joules)),
        times(difference.and_then(|one| one.ipj)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::journal::tests::{row, settings};
    use super::*;

    fn run(name: &str, joules: f64, right: impl Fn(u32) -> bool) -> Run {
        let rows = (0..40).map(|number| {
            let score = f64::from(u8::from(right(number)));
            row(&format!("q{number}"), score, joules * f64::from(1 + number % 3))
        });
        let measured = "2026-11-30".to_owned();
        Run { name: name.to_owned(), measured, settings: settings(), rows: rows.collect() }
    }

    #[test]
    fn a_run_is_compared_with_the_first_over_common_questions() {
        let runs =
            [run("old", 2.0, |number| number % 2 == 0), run("new", 1.0, |number| number % 4 != 3)];
        let found = Comparison::of(&runs);
        assert!(found.lines[0].difference.is_none());
        let difference = found.lines[1].difference.unwrap();
        let value = |estimate: Option<Estimate>| format!("{:.3}", estimate.unwrap().value);
        assert_eq!(
            (
                difference.questions,
                value(difference.accuracy),
                value(difference.joules),
                value(difference.ipj)
            ),
            (40, "0.250".into(), "0.500".into(), "3.000".into())
        );
        let joules = difference.joules.unwrap();
        assert!(joules.high - joules.low < 1e-9, "all questions take half: the pairing shows it");
        let text = found.to_string();
        assert!(text.contains("+25.0 (") && text.contains("old: "), "{text}");
    }

    #[test]
    fn another_suite_has_no_difference() {
        let mut other = run("other", 1.0, |_| true);
        other.settings.suite_sha256 = "cd".to_owned();
        let found = Comparison::of(&[run("old", 2.0, |_| true), other]);
        assert!(found.lines[1].difference.is_none());
    }
}
