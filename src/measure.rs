//! Intelligence per watt and per joule, measured on this machine, and the profile that routing and
//! attribution use afterwards.
//!
//! Sends requests to a running gateway over HTTP and reads its receipts, so that local and cloud
//! models are measured as they serve. Starts no gateway and prints nothing.

pub mod calibrate;
pub mod chart;
pub mod client;
pub mod compare;
pub mod ensemble;
pub mod fit;
pub mod grader;
pub mod html_report;
pub mod journal;
pub mod least_squares;
pub mod run;
pub mod scrape;
pub mod stats;
pub mod suite;
pub mod summary;
pub mod table;
pub mod wall;

use std::collections::BTreeMap;

use crate::energy::prediction::profile::{ModelFile, ModelProfile, Profile};
use crate::energy::{Quality, Source};

pub use client::{ClientError, Gateway, SamplingOptions};
pub use compare::{Comparison, Run};
pub use journal::{Journal, JournalError, Row, Settings};
pub use run::{ModelBaseline, Plan, RunError};
pub use suite::{Item, Suite, SuiteError};
pub use summary::{ModelResult, Summary};

/// Writes the fits into the profile and keeps its other models.
pub fn update_profile(
    profile: &mut Profile,
    summary: &Summary,
    files: &BTreeMap<String, ModelFile>,
) {
    for alone in summary.results.iter().filter(|result| result.batch == 1) {
        let Some(fit) = &alone.fit else { continue };
        let batched = summary
            .results
            .iter()
            .filter(|other| other.model == alone.model && other.batch > 1)
            .max_by_key(|other| other.batch);
        let model = ModelProfile {
            measured: summary.measured.clone(),
            file: files.get(&alone.model).cloned(),
            quality: alone.quality.unwrap_or(Quality::Assumed),
            source: alone.source.unwrap_or(Source::CpuModel),
            load_joules: alone.load_joules,
            idle_watts: alone.idle_watts,
            alone: fit.cost,
            batched: batched.and_then(|other| other.fit.as_ref()).map(|fit| fit.cost),
        };
        profile.models.insert(alone.model.clone(), model);
    }
}

/// Today's date in UTC, for results and profiles.
pub fn today() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()
}
