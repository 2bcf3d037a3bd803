//! Off-policy estimates of a replay for people and machines. Pure.

use std::fmt;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::replay::estimate::support::Diagnostics;
use crate::replay::estimate::{Estimator, Evaluation, Interval, Verdict};
use crate::replay::evidence::Quantity;

/// Estimates of one quantity under one policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QuantityEstimates {
    pub quantity: Quantity,
    pub support: Diagnostics,
    pub verdict: Verdict,
    /// The estimator to read first: doubly robust, or self-normalised where a prediction is
    /// missing.
    pub headline: Estimator,
    /// Those that apply.
    pub estimates: Vec<Figure>,
}

/// A mean per request by one estimator.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    pub estimator: Estimator,
    pub value: f64,
    /// 95 %, whole conversations resampled; absent if there are too few.
    pub interval: Option<Interval>,
    /// 95 % at every look at a growing log together.
    pub any_time_interval: Option<Interval>,
}

impl QuantityEstimates {
    pub(super) fn new(quantity: Quantity, evaluation: &Evaluation) -> Self {
        let figure = |estimator| {
            let estimate = evaluation.estimate(estimator)?;
            Some(Figure {
                estimator,
                value: estimate.value,
                interval: estimate.interval(),
                any_time_interval: estimate.any_time_interval(),
            })
        };
        Self {
            quantity,
            support: evaluation.support.diagnostics(),
            verdict: evaluation.verdict(),
            headline: Quantity::headline(evaluation),
            estimates: Estimator::ALL.into_iter().filter_map(figure).collect(),
        }
    }

    pub fn figure(&self, estimator: Estimator) -> Option<&Figure> {
        self.estimates.iter().find(|figure| figure.estimator == estimator)
    }

    pub fn is_supported(&self) -> bool {
        self.verdict == Verdict::Supported
    }

    /// The headline with its interval, or why there is none.
    fn cell(&self) -> String {
        match self.figure(self.headline) {
            Some(figure) if self.is_supported() => figure.to_string(),
            _ if self.support.requests == 0 => "–".to_owned(),
            _ => "no verdict".to_owned(),
        }
    }
}

impl Figure {
    /// The interval that holds at every look, as text.
    pub fn any_time(&self) -> Option<String> {
        let Interval { low, high } = self.any_time_interval?;
        let digits = digits(self.value);
        Some(format!("[{low:.digits$}, {high:.digits$}]"))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = digits(self.value);
        match self.interval {
            Some(Interval { low, high }) => {
                write!(f, "{:.digits$} [{low:.digits$}, {high:.digits$}]", self.value)
            }
            None => write!(f, "{:.digits$}", self.value),
        }
    }
}

/// Decimal places for three significant digits, and at least those of a probability.
fn digits(value: f64) -> usize {
    match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.01 || size == 0.0 => 3,
        _ => 6,
    }
}

/// Why a policy has no verdict, for each quantity with a reason of its own.
pub fn lack(policy: &str, estimates: &[QuantityEstimates]) -> Vec<String> {
    let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
    for one in estimates.iter().filter(|one| one.support.requests > 0) {
        let Verdict::NotSupported { why, .. } = &one.verdict else { continue };
        let why = why.iter().map(ToString::to_string).collect::<Vec<String>>().join("; ");
        match reasons.iter_mut().find(|(reason, _)| *reason == why) {
            Some((_, quantities)) => quantities.push(one.quantity.label()),
            None => reasons.push((why, vec![one.quantity.label()])),
        }
    }
    let line = |(why, quantities): (String, Vec<&str>)| {
        format!("{policy}: no verdict on {}: {why}", quantities.join(", "))
    };
    reasons.into_iter().map(line).collect()
}

/// The headline of each policy as a table, and what is missing where there is no verdict.
pub(super) fn table<'a>(
    rows: impl Iterator<Item = (&'a str, &'a [QuantityEstimates])>,
) -> (Table, Vec<String>) {
    let mut table = Table::new();
    let titles =
        ["policy", "quality (95 %)", "joules (95 %)", "dollars (95 %)", "worth", "differs"];
    table.load_style(NOTHING).set_header(titles);
    let mut lacks = Vec::new();
    for (policy, estimates) in rows {
        let cell = |quantity| {
            let found = estimates.iter().find(|one| one.quantity == quantity);
            found.map_or_else(String::new, QuantityEstimates::cell)
        };
        let quality = estimates.iter().find(|one| one.quantity == Quantity::Quality);
        table.add_row([
            policy.to_owned(),
            cell(Quantity::Quality),
            cell(Quantity::Joules),
            cell(Quantity::Dollars),
            quality.map_or_else(String::new, |one| {
                format!("{:.0} of {}", one.support.effective_sample_size, one.support.requests)
            }),
            quality.map_or_else(String::new, |one| {
                format!("{:.0} %", 100.0 * one.support.disagreement)
            }),
        ]);
        lacks.extend(lack(policy, estimates));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    (table, lacks)
}
