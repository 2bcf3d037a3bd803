//! State shared by all requests: models and policies to decide from, receipts, metrics and the judge's queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::conversations::retry_detector::RetryDetector;
use super::conversations::sessions::Conversations;
use super::judge::queue::JudgeQueue;
use super::models::model::Model;
use super::models::router_handle::RouterHandle;
use super::receipts::store::ReceiptStore;
use crate::energy::MeterHandle;
use crate::routing::Policy;
use crate::telemetry::Metrics;
use crate::traffic::PromptStorage;
use crate::units::AttemptId;

/// One gateway.
pub struct Gateway {
    pub router: Router,
    pub receipts: ReceiptStore,
    pub retries: RetryDetector,
    pub metrics: Arc<Metrics>,
    /// How much of a prompt the log keeps.
    pub prompts: PromptStorage,
    /// `None` if nothing is judged.
    pub judge: Option<JudgeQueue>,
    attempts: AtomicU64,
}

impl Gateway {
    pub fn new(
        router: Router,
        receipts: ReceiptStore,
        metrics: Arc<Metrics>,
        prompts: PromptStorage,
        judge: Option<JudgeQueue>,
    ) -> Self {
        let attempts = AtomicU64::new(1);
        let retries = RetryDetector::default();
        Self { router, receipts, retries, metrics, prompts, judge, attempts }
    }

    pub fn next_attempt(&self) -> AttemptId {
        AttemptId(self.attempts.fetch_add(1, Ordering::Relaxed))
    }
}

/// Everything a decision is made from.
pub struct Router {
    /// In the order of the config, which breaks ties.
    pub models: Vec<Model>,
    /// Source of measured costs of local answers.
    pub meter: MeterHandle,
    pub handle: RouterHandle,
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
