//! Intelligence per watt and per joule, measured on this machine through the gateway's own front door, and the profile
//! that routing and attribution use afterwards.
//!
//! Asks a running gateway over HTTP and reads its books, so that local and cloud models are measured as they serve. Starts
//! no gateway, and shows nothing while it works.

pub mod ask;
pub mod calibrate;
pub mod chart;
pub mod check;
pub mod fit;
pub mod journal;
pub mod least_squares;
pub mod page;
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

pub use ask::{Gateway, Manner};
pub use journal::{Journal, JournalError, Row, Settings};
pub use run::{Plan, RunError, Standing};
pub use suite::{Item, Suite, SuiteError};
pub use summary::{ModelResult, Summary};

/// Puts what was fitted into the profile; what it knows of other models stays.
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
