//! Memory budget for loaded models, shared by all supervisors of a gateway.
//!
//! [`super::eviction`] chooses the models to evict; this file has the table and the waiting.
//! Eviction is a request: a model's own supervisor ends its engine, unless a request has arrived
//! for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, Semaphore};

use super::eviction::{Resident, Room, room};
use super::threads;

/// Loaded models and the memory they hold.
#[derive(Debug)]
pub struct MemoryBudget {
    budget_bytes: u64,
    cores: usize,
    table: Mutex<Vec<Entry>>,
    /// A model has left the table or become idle.
    changed: Notify,
    /// Waiters form a queue, so that a small model does not overtake a large one indefinitely.
    turn: Semaphore,
}

#[derive(Debug)]
struct Entry {
    model: Arc<str>,
    resident: Resident<Instant>,
    evict: Arc<Notify>,
}

/// A loaded model without requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    pub model: Arc<str>,
    pub bytes: u64,
    pub since: Duration,
}

/// The model exceeds the whole budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it needs {} MiB and [engines] memory_budget_mib allows {}: use fewer slots, a shorter context or a smaller file",
    .needed_bytes >> 20, .budget_bytes >> 20
)]
pub struct TooLarge {
    pub needed_bytes: u64,
    pub budget_bytes: u64,
}

/// Memory of one loaded model, returned on drop. Busy at first, while the model loads.
#[derive(Debug)]
pub struct Lease {
    budget: Arc<MemoryBudget>,
    evict: Arc<Notify>,
    busy: bool,
    /// Number of loaded engines when the lease was granted, including this one.
    pub engines: usize,
}

impl MemoryBudget {
    /// `cores` is the number this process may use.
    pub fn new(budget_bytes: u64, cores: usize) -> Arc<Self> {
        Arc::new(Self {
            budget_bytes,
            cores,
            table: Mutex::default(),
            changed: Notify::new(),
            turn: Semaphore::new(1),
        })
    }

    /// Waits until `bytes` are free, evicting idle models. Waits without limit; dropping the future
    /// gives up.
    pub async fn lease(self: &Arc<Self>, model: &Arc<str>, bytes: u64) -> Result<Lease, TooLarge> {
        // The semaphore is never closed.
        let _turn = self.turn.acquire().await;
        loop {
            if let Some(lease) = self.try_lease(model, bytes, true)? {
                return Ok(lease);
            }
            self.changed.notified().await;
        }
    }

    /// Leases the memory if it is free; otherwise, with `evict`, asks idle models to leave and
    /// returns `None`.
    pub fn try_lease(
        self: &Arc<Self>,
        model: &Arc<str>,
        bytes: u64,
        evict: bool,
    ) -> Result<Option<Lease>, TooLarge> {
        let mut table = self.lock();
        let residents: Vec<_> = table.iter().map(|entry| entry.resident).collect();
        match room(&residents, self.budget_bytes, bytes) {
            Room::Free => {}
            Room::Evict(victims) if evict => {
                for victim in victims {
                    table[victim].evict.notify_one();
                }
                return Ok(None);
            }
            Room::Evict(_) | Room::Wait => return Ok(None),
            Room::Never => {
                return Err(TooLarge { needed_bytes: bytes, budget_bytes: self.budget_bytes });
            }
        }
        let evict = Arc::new(Notify::new());
        let resident = Resident { bytes, busy: true, last_used: Instant::now() };
        table.push(Entry { model: Arc::clone(model), resident, evict: Arc::clone(&evict) });
        let engines = table.len();
        Ok(Some(Lease { budget: Arc::clone(self), evict, busy: true, engines }))
    }

    /// Loaded models without requests.
    pub fn idle(&self) -> Vec<Idle> {
        let idle = |entry: &Entry| Idle {
            model: Arc::clone(&entry.model),
            bytes: entry.resident.bytes,
            since: entry.resident.last_used.elapsed(),
        };
        self.lock().iter().filter(|entry| !entry.resident.busy).map(idle).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.table.lock()
    }
}

impl Lease {
    /// Sets whether the engine has work. Cheap if unchanged.
    pub fn set_busy(&mut self, busy: bool) {
        if std::mem::replace(&mut self.busy, busy) == busy {
            return;
        }
        for entry in self.budget.lock().iter_mut().filter(|entry| self.is(entry)) {
            entry.resident.busy = busy;
            entry.resident.last_used = Instant::now();
        }
        if !busy {
            self.budget.changed.notify_one();
        }
    }

    /// Resolves when another model needs this memory.
    pub fn wanted_back(&self) -> impl Future<Output = ()> + use<> {
        let evict = Arc::clone(&self.evict);
        async move { evict.notified().await }
    }

    /// Number of threads for an engine without a configured one.
    pub fn threads(&self) -> usize {
        threads::share(self.budget.cores, self.engines)
    }

    fn is(&self, entry: &Entry) -> bool {
        Arc::ptr_eq(&entry.evict, &self.evict)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.lock().retain(|entry| !Arc::ptr_eq(&entry.evict, &self.evict));
        self.budget.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn name(model: &str) -> Arc<str> {
        model.into()
    }

    #[tokio::test]
    async fn a_busy_model_is_waited_for_and_an_idle_one_is_evicted() {
        let budget = MemoryBudget::new(100, 4);
        let mut first = budget.lease(&name("first"), 60).await.unwrap();
        let second = name("second");
        let mut waiting = Box::pin(budget.lease(&second, 60));
        assert!((&mut waiting).now_or_never().is_none(), "the first one loads");
        assert!(first.wanted_back().now_or_never().is_none(), "a busy model is left alone");
        first.set_busy(false);
        assert_eq!(budget.idle()[0].model, name("first"));
        assert!((&mut waiting).now_or_never().is_none());
        assert!(first.wanted_back().now_or_never().is_some());
        drop(first);
        let second = waiting.now_or_never().expect("the memory is free").unwrap();
        assert_eq!((second.engines, second.threads()), (1, 4));
    }

    #[tokio::test]
    async fn a_small_model_does_not_overtake_a_large_one() {
        let budget = MemoryBudget::new(100, 4);
        let first = budget.lease(&name("first"), 60).await.unwrap();
        let (large, small) = (name("large"), name("small"));
        let mut waiting = Box::pin(budget.lease(&large, 90));
        assert!((&mut waiting).now_or_never().is_none());
        let mut behind = Box::pin(budget.lease(&small, 10));
        assert!((&mut behind).now_or_never().is_none());
        // Dropping a waiter removes it from the queue.
        drop(waiting);
        assert!(behind.now_or_never().is_some());
        drop(first);
    }

    #[test]
    fn a_model_that_never_fits_is_refused_at_once() {
        let budget = MemoryBudget::new(100 << 20, 4);
        let error = budget.try_lease(&name("big"), 200 << 20, true).unwrap_err();
        assert!(error.to_string().contains("needs 200 MiB"), "{error}");
    }
}
