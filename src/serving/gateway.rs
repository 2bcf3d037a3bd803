//! State shared by all requests: models and policies to decide from, receipts, metrics and the
//! judge's queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::conversations::retry_detector::RetryDetector;
use super::conversations::sessions::Conversations;
use super::judge::queue::JudgeQueue;
use super::models::model::Model;
use super::models::router_handle::{LoadRouterError, Reloaded, RouterHandle, Routers};
use super::receipts::store::ReceiptStore;
use super::snapshot::Snapshot;
use crate::energy::MeterHandle;
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

/// The present snapshot, and what outlives its replacement.
pub struct Router {
    snapshot: ArcSwap<Snapshot>,
    handle: RouterHandle,
    /// Source of measured costs of local answers.
    pub meter: MeterHandle,
    pub conversations: Conversations,
}

impl Router {
    pub fn new(
        snapshot: Snapshot,
        handle: RouterHandle,
        meter: MeterHandle,
        conversations: Conversations,
    ) -> Self {
        Self { snapshot: ArcSwap::from_pointee(snapshot), handle, meter, conversations }
    }

    /// The present snapshot. A request takes it once and holds it to its end.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    pub fn model(&self, name: &str) -> Option<Arc<Model>> {
        self.snapshot.load().models.get(name).cloned()
    }

    /// Loads the routers again; on an error the present ones stay. Blocks on files: not for the
    /// threads that serve.
    pub fn reload(&self) -> Result<Reloaded, LoadRouterError> {
        let Routers { router, shadow } = self.handle.load()?;
        self.snapshot.rcu(|present| Snapshot {
            router: Arc::clone(&router),
            shadow: shadow.clone(),
            ..Snapshot::clone(present)
        });
        Ok(self.handle.reloaded())
    }
}
