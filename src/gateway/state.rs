//! What every handler shares.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::admin;
use super::books::Books;
use super::conversations::Conversations;
use super::judge::Judging;
use super::learnt::Live;
use super::model::Model;
use super::recents::Recents;
use crate::energy::MeterHandle;
use crate::routing::Policy;
use crate::telemetry::Metrics;
use crate::traffic::PromptStorage;
use crate::units::AttemptId;

/// One gateway.
pub struct Gateway {
    pub router: Router,
    pub books: Books,
    /// Conversations answered lately.
    pub recents: Recents,
    pub metrics: Arc<Metrics>,
    pub max_body_bytes: usize,
    /// What the log keeps of prompts.
    pub prompts: PromptStorage,
    pub admin: admin::Config,
    /// The way to the judge; none where nothing is judged.
    pub judging: Option<Judging>,
    attempts: AtomicU64,
}

impl Gateway {
    pub fn new(
        router: Router,
        books: Books,
        metrics: Arc<Metrics>,
        max_body_bytes: usize,
        prompts: PromptStorage,
        admin: admin::Config,
        judging: Option<Judging>,
    ) -> Self {
        let attempts = AtomicU64::new(1);
        let recents = Recents::default();
        Self { router, books, recents, metrics, max_body_bytes, prompts, admin, judging, attempts }
    }

    pub fn next_attempt(&self) -> AttemptId {
        AttemptId(self.attempts.fetch_add(1, Ordering::Relaxed))
    }
}

/// Everything a decision is made from.
pub struct Router {
    /// In the order of the config, which breaks ties.
    pub models: Vec<Model>,
    /// Knows what local answers have cost.
    pub meter: MeterHandle,
    pub learnt: Live,
    pub policies: BTreeMap<Arc<str>, Arc<Policy>>,
    /// Key of `policies`.
    pub default_policy: Arc<str>,
    pub conversations: Conversations,
}

impl Router {
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|model| &*model.name == name)
    }
}
