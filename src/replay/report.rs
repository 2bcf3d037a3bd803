//! Report of a replay, as a table and as JSON. Pure.

pub mod estimates;

use std::borrow::Cow;
use std::fmt;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::estimate::{Advice, Verdict};
use super::evidence::{Evaluations, Quantity};
use super::summary::Summary;
use crate::energy::Quality;
use crate::plot::percent;
use crate::units::{Dollars, Joules};

pub use estimates::QuantityEstimates;

/// Result of a replay: the log itself first, then each rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Requests in the log.
    pub requests: u64,
    /// Requests for which the logged rule, applied again, selects the same first model. Fewer than
    /// all means that the rule or the log has changed its meaning since.
    pub reproduced: u64,
    /// Requests whose logged propensity is not above 0 and at most 1: left out of the estimates.
    pub unusable_propensities: u64,
    pub policies: Vec<Row>,
}

/// Result of one rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// `logged` for the log itself.
    pub policy: String,
    pub requests: u64,
    pub unanswered: u64,
    /// Share of the answers, 0 to 1.
    pub share_local: Option<f64>,
    pub energy: Energy,
    /// Known prices only.
    pub dollars: Dollars,
    pub unknown_price_requests: u64,
    /// Mean predicted adequacy, 0 to 1; a request without an answer counts 0.
    pub expected_quality: Option<f64>,
    /// Mean label, 0 to 1, of the `labelled_requests` for which this rule's answer is the logged
    /// one.
    pub observed_quality: Option<f64>,
    pub labelled_requests: u64,
    /// Estimates from the outcomes in the log, one for each quantity.
    pub estimates: Vec<QuantityEstimates>,
}

/// Energy by its origin; each request counts under exactly one of the three.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Energy {
    /// Sum of the known figures.
    pub joules: Joules,
    /// From the log.
    pub metered_joules: Joules,
    pub metered_requests: u64,
    /// Worst quality of the figures from the log.
    pub metered_quality: Option<Quality>,
    /// Predicted at the time of the request, never run.
    pub predicted_joules: Joules,
    pub predicted_requests: u64,
    pub unknown_requests: u64,
}

impl Report {
    pub(super) fn new<'a>(
        logged: (&'a Summary, &'a Evaluations),
        reproduced: u64,
        unusable_propensities: u64,
        replayed: impl Iterator<Item = (Cow<'a, str>, &'a Summary, &'a Evaluations)>,
    ) -> Self {
        let (summary, evaluations) = logged;
        let rows = [(Cow::Borrowed("logged"), summary, evaluations)]
            .into_iter()
            .chain(replayed.filter(|(_, sum, _)| sum.requests > 0));
        Self {
            requests: summary.requests,
            reproduced,
            unusable_propensities,
            policies: rows
                .map(|(policy, summary, evaluations)| Row::new(&policy, summary, evaluations))
                .collect(),
        }
    }

    /// The log that would give the last verdict that is missing; `None` if none is.
    pub fn advice(&self) -> Option<Advice> {
        let estimates = self.policies.iter().flat_map(|row| &row.estimates);
        let missing = estimates.filter(|one| one.support.requests > 0);
        let advice = missing.filter_map(|one| match &one.verdict {
            Verdict::NotSupported { advice, .. } => Some(*advice),
            Verdict::Supported => None,
        });
        advice.max_by_key(|advice| advice.requests)
    }

    /// Whether every estimate for which the log has outcomes is supported, and some quantity has
    /// outcomes.
    pub fn is_supported(&self) -> bool {
        let judged = || {
            let estimates = self.policies.iter().flat_map(|row| &row.estimates);
            estimates.filter(|one| one.support.requests > 0)
        };
        judged().next().is_some() && judged().all(QuantityEstimates::is_supported)
    }
}

impl Row {
    fn new(policy: &str, summary: &Summary, evaluations: &Evaluations) -> Self {
        let estimates = Quantity::ALL.into_iter().zip(evaluations);
        Self {
            policy: policy.to_owned(),
            requests: summary.requests,
            unanswered: summary.requests - summary.answered,
            share_local: summary.share_local(),
            energy: Energy {
                joules: summary.joules(),
                metered_joules: summary.metered.and_then(|sum| sum.joules).unwrap_or_default(),
                metered_requests: summary.metered_requests,
                metered_quality: summary.metered.map(|sum| sum.quality),
                predicted_joules: summary.predicted,
                predicted_requests: summary.predicted_requests,
                unknown_requests: summary.unknown_energy_requests,
            },
            dollars: summary.dollars,
            unknown_price_requests: summary.unknown_price_requests,
            expected_quality: summary.expected_quality(),
            observed_quality: summary.observed_quality(),
            labelled_requests: summary.labelled,
            estimates: estimates
                .map(|(quantity, evaluation)| QuantityEstimates::new(quantity, evaluation))
                .collect(),
        }
    }

    fn cells(&self) -> [String; 9] {
        [
            self.policy.clone(),
            self.requests.to_string(),
            self.unanswered.to_string(),
            self.share_local.map_or_else(none, percent),
            or_more(self.energy.joules.to_string(), self.energy.unknown_requests),
            self.energy.logged_share(self.requests),
            or_more(self.dollars.to_string(), self.unknown_price_requests),
            self.expected_quality.map_or_else(none, |quality| format!("{quality:.3}")),
            self.observed_quality
                .map_or_else(none, |quality| format!("{quality:.3} of {}", self.labelled_requests)),
        ]
    }
}

impl Energy {
    /// Share of the requests whose energy is from the log, and its quality.
    fn logged_share(&self, requests: u64) -> String {
        let share = percent(self.metered_requests as f64 / requests.max(1) as f64);
        self.metered_quality.map_or(share.clone(), |quality| format!("{share} {}", quality.label()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header([
            "policy",
            "requests",
            "unanswered",
            "local",
            "energy",
            "from log",
            "price",
            "quality",
            "judged",
        ]);
        for row in &self.policies {
            table.add_row(row.cells());
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{}\n", table.trim_fmt())?;
        writeln!(
            f,
            "from log: the policy's answer is the one that was given, so its energy is known; the rest is predicted"
        )?;
        writeln!(
            f,
            "quality: mean predicted adequacy; judged: mean label of the answers that were given"
        )?;
        writeln!(
            f,
            "the logged rules, applied again, choose the same model for {} of {} requests",
            self.reproduced, self.requests
        )?;
        self.fmt_estimates(f)
    }
}

impl Report {
    fn fmt_estimates(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.policies.iter().map(|row| (row.policy.as_str(), &*row.estimates));
        let (table, lacks) = estimates::table(rows);
        writeln!(
            f,
            "\nEstimated from outcomes in the log, per request:\n\n{}\n",
            table.trim_fmt()
        )?;
        for lack in lacks {
            writeln!(f, "{lack}")?;
        }
        if let Some(advice) = self.advice() {
            writeln!(f, "{advice}")?;
        }
        write!(
            f,
            "worth: judged requests that the log is worth for this policy; differs: share of its choices that the log made otherwise"
        )
    }
}

fn none() -> String {
    "–".to_owned()
}

/// A sum of known figures, with the number of unknown ones.
fn or_more(sum: String, unknown_requests: u64) -> String {
    if unknown_requests == 0 { sum } else { format!("{sum} + {unknown_requests} unknown") }
}
