//! Counts over a log: what it holds by model, and what is wrong with it. Pure.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use super::reader::Line;
use super::record::{Outcome, Record};
use crate::energy::EnergyFigure;
use crate::units::{Dollars, Joules};

/// Sums of the requests that one model answered, or none.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ModelCount {
    pub requests: u64,
    pub answered: u64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// Known figures; a sum has the worst quality of its parts.
    pub energy: Option<EnergyFigure>,
    pub unknown_energy_requests: u64,
    pub dollars: Dollars,
    pub unknown_price_requests: u64,
    pub labels: u64,
    pub label_sum: f64,
    /// Milliseconds of the answered requests; sorted by [`Census::finish`].
    #[serde(skip)]
    pub total_ms: Vec<f32>,
}

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Census {
    pub records: u64,
    pub annotations: u64,
    /// Files whose last line is incomplete, as after a kill.
    pub torn_lines: u64,
    pub bad_lines: u64,
    /// Records whose id an earlier one has.
    pub duplicate_ids: u64,
    /// Records that arrived before the one they follow by more than requests overlap.
    pub steps_back: u64,
    /// Records whose propensity is not above 0 and at most 1.
    pub bad_propensities: u64,
    pub versions: BTreeMap<u32, u64>,
    pub first_unix_ms: Option<u64>,
    pub last_unix_ms: Option<u64>,
    /// By the answering model; under an empty name where none answered.
    pub models: BTreeMap<Arc<str>, ModelCount>,
    #[serde(skip)]
    ids: HashSet<u128>,
    #[serde(skip)]
    latest_unix_ms: u64,
}

/// Records are written when their requests end: one may arrive this much before the one it follows.
const OVERLAP_MS: u64 = 60 * 60 * 1000;

impl Census {
    pub fn add(&mut self, line: &Line) {
        match line {
            Line::Record(record) => self.add_record(record),
            Line::Annotation(_) => self.annotations += 1,
            Line::Torn => self.torn_lines += 1,
            Line::Bad { .. } => self.bad_lines += 1,
        }
    }

    /// Whether every line is a whole record of its own.
    pub fn is_sound(&self) -> bool {
        self.torn_lines + self.bad_lines + self.duplicate_ids + self.bad_propensities == 0
    }

    #[must_use]
    pub fn finish(mut self) -> Self {
        for count in self.models.values_mut() {
            count.total_ms.sort_by(f32::total_cmp);
        }
        self
    }

    fn add_record(&mut self, record: &Record) {
        self.records += 1;
        *self.versions.entry(record.version).or_default() += 1;
        self.duplicate_ids += u64::from(!self.ids.insert(key(&record.receipt.request_id)));
        self.steps_back += u64::from(record.unix_ms + OVERLAP_MS < self.latest_unix_ms);
        self.latest_unix_ms = self.latest_unix_ms.max(record.unix_ms);
        let is_probability = record.propensity > 0.0 && record.propensity <= 1.0;
        self.bad_propensities += u64::from(!is_probability);
        self.first_unix_ms =
            Some(self.first_unix_ms.map_or(record.unix_ms, |first| first.min(record.unix_ms)));
        self.last_unix_ms =
            Some(self.last_unix_ms.map_or(record.unix_ms, |last| last.max(record.unix_ms)));
        let model = record.receipt.model.clone().unwrap_or_default();
        self.models.entry(model).or_default().add(record);
    }
}

impl ModelCount {
    /// Known joules.
    pub fn joules(&self) -> Joules {
        self.energy.and_then(|figure| figure.joules).unwrap_or_default()
    }

    fn add(&mut self, record: &Record) {
        self.requests += 1;
        if record.outcome == Outcome::Answered {
            self.answered += 1;
            #[expect(clippy::cast_possible_truncation, reason = "for quantiles that people read")]
            self.total_ms.push(record.timings.total_ms as f32);
        }
        if let Some(usage) = &record.usage {
            self.prompt_tokens += usage.prompt_tokens;
            self.completion_tokens += usage.completion_tokens;
        }
        match record.receipt.energy.filter(|figure| figure.joules.is_some()) {
            Some(figure) => {
                self.energy = Some(self.energy.map_or(figure, |sum| sum.plus(figure)));
            }
            None if record.receipt.attempts.is_empty() => {}
            None => self.unknown_energy_requests += 1,
        }
        match record.dollars {
            Some(price) => self.dollars = self.dollars + price,
            None => self.unknown_price_requests += 1,
        }
        if let Some(label) = record.label {
            self.labels += 1;
            self.label_sum += label;
        }
    }
}

/// An id of this gateway is a UUID; any other is hashed.
fn key(request_id: &str) -> u128 {
    Uuid::parse_str(request_id).map_or_else(
        |_| {
            let mut hasher = DefaultHasher::new();
            hasher.write(request_id.as_bytes());
            hasher.finish().into()
        },
        |id| id.as_u128(),
    )
}
