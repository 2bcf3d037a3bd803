//! Report of a training: how the router was made, and its evaluation.

use serde::Serialize;

use super::ability::FormatFailure;
use super::calibrate::Calibration;
use super::feature_ablation::Design;
use super::outcomes::Source;
use super::pair_eval::PairReport;

/// Contains no date, so the same data give the same bytes.
#[derive(Debug, Serialize)]
pub struct Report {
    pub seed: u64,
    pub sources: Vec<Source>,
    /// Rows that repeat the text and the models of an earlier row; their scores are averaged.
    pub duplicates: usize,
    /// Those of them with other scores.
    pub contradictions: usize,
    /// Rows left out because the files hold more than training uses; the sample is random.
    pub unsampled: usize,
    /// Task and model pairs whose scores are failures of the answer format, not of ability.
    pub format_failures: Vec<FormatFailure>,
    /// Canonical name and ability, ascending.
    pub abilities: Vec<(String, f64)>,
    /// Of the general model; `None` if that is another router's.
    pub calibration: Option<Calibration>,
    /// One for each source with direct labels of two models or more.
    pub pairs: Vec<PairReport>,
    /// If there were vectors to compare with.
    pub designs: Vec<Design>,
}
