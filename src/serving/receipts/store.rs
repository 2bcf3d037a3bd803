//! Store of receipts from the end of an answer until their energy is final: keeps, settles, counts
//! and logs them.
//!
//! Each request is inserted once and published once: when all its attempts have settled, or at a
//! deadline. No call blocks.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::emissions::Emissions;
use super::outcome_metrics;
use super::totals::Totals;
use crate::energy::{EnergyFigure, Settled};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{CarbonLabels, EnergyLabels, ModelLabels};
use crate::traffic::feedback::FEEDBACK_VERSION;
use crate::traffic::lookup;
use crate::traffic::{
    Annotation, Attempt, AttemptOutcome, Entry as LogEntry, Feedback, ImplicitSignal, Prompt,
    Record, RecordSink, Signal, VerdictSource, Verdicts,
};
use crate::units::{AttemptId, unix_ms};

/// Requests that `GET /v1/requests/{id}` remembers; about 2 KiB each, without their prompts.
const REMEMBERED: usize = 4096;

/// Most bytes of prompts that wait for the energy of their requests. Beyond, the oldest are logged
/// with the energy so far.
const WAITING_PROMPT_BYTES: usize = 64 << 20;

/// After this a request is published with its figure so far, marked as not final.
const SETTLEMENT_DEADLINE: Duration = Duration::from_secs(30);

/// After this an unsettled attempt of the gateway's own counts as never run.
const OVERHEAD_DEADLINE: Duration = Duration::from_mins(10);

/// Longest wait for the permit to search the log.
const SEARCH_DEADLINE: Duration = Duration::from_secs(5);

/// Another search of the log is in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many old requests are being looked up")]
pub struct Busy;

/// The receipts of one gateway.
pub struct ReceiptStore {
    entries: Mutex<Entries>,
    pub sink: RecordSink,
    /// Carbon and electricity costs of requests.
    pub emissions: Emissions,
    metrics: Arc<Metrics>,
    /// One permit: a search reads a whole day's file.
    searching: Semaphore,
}

#[derive(Default)]
struct Entries {
    by_id: HashMap<Arc<str>, Entry>,
    /// Ids of `by_id`, oldest first.
    order: VecDeque<Arc<str>>,
    /// Request of each unsettled attempt.
    owners: HashMap<AttemptId, Arc<str>>,
    /// Attempts that settled before their request ended: an early failure that fell back.
    early: HashMap<AttemptId, (Settled, Instant)>,
    /// Of the unpublished requests.
    prompt_bytes: usize,
    /// Attempts of the gateway's own that have not settled.
    overhead: HashMap<AttemptId, (ModelLabels, Instant)>,
}

struct Entry {
    /// Without the prompt; shared with the log once it is published if there is none.
    record: Arc<Record>,
    /// For the log only, until it is published; with about its size in bytes.
    prompt: Option<(Prompt, usize)>,
    /// Attempts whose energy is not final, with their place in the record.
    unsettled: Vec<(AttemptId, usize)>,
    ended: Instant,
    published: bool,
    /// Feedback on the answer.
    verdicts: Verdicts,
}

impl ReceiptStore {
    pub fn new(sink: RecordSink, emissions: Emissions, metrics: Arc<Metrics>) -> Self {
        let searching = Semaphore::new(1);
        Self { entries: Mutex::default(), sink, emissions, metrics, searching }
    }

    /// Inserts a request that ended. `metered` lists the attempts whose energy settles later, with
    /// their indices in the record; its prompt has at most `prompt_bytes`.
    pub fn insert(
        &self,
        mut record: Record,
        metered: Vec<(AttemptId, usize)>,
        prompt_bytes: usize,
    ) {
        let entries = &mut *self.lock();
        let id = Arc::clone(&record.receipt.request_id);
        let mut unsettled = Vec::new();
        for (attempt, place) in metered {
            if let Some((settled, _)) = entries.early.remove(&attempt) {
                note_energy(&mut record.receipt.attempts[place], &settled);
            } else {
                entries.owners.insert(attempt, Arc::clone(&id));
                unsettled.push((attempt, place));
            }
        }
        let prompt = record.prompt.take().map(|prompt| (prompt, prompt_bytes));
        entries.prompt_bytes += prompt.as_ref().map_or(0, |(_, bytes)| *bytes);
        let mut entry = Entry {
            record: Arc::new(record),
            prompt,
            unsettled,
            ended: Instant::now(),
            published: false,
            verdicts: Verdicts::default(),
        };
        self.publish_if_settled(&mut entry, &mut entries.prompt_bytes);
        entries.order.push_back(Arc::clone(&id));
        entries.by_id.insert(id, entry);
        if entries.order.len() > REMEMBERED {
            self.forget_oldest(entries);
        }
        if entries.prompt_bytes > WAITING_PROMPT_BYTES {
            self.publish_oldest(entries);
        }
    }

    /// Requests that have ended and whose energy is not final.
    pub fn unsettled(&self) -> usize {
        self.lock().by_id.values().filter(|entry| !entry.unsettled.is_empty()).count()
    }

    /// The record of an ended request; `None` if it is no longer in memory.
    pub fn get(&self, id: &str) -> Option<Arc<Record>> {
        self.lock().by_id.get(id).map(|entry| Arc::clone(&entry.record))
    }

    /// Records and logs feedback of `source` on an answer. Returns the record with its updated
    /// label; `None` if the request is not in memory.
    pub fn record_feedback(
        &self,
        id: &str,
        source: VerdictSource,
        score: f64,
        comment: Option<String>,
    ) -> Option<Arc<Record>> {
        let mut entries = self.lock();
        let entry = entries.by_id.get_mut(id)?;
        let before = entry.verdicts.set(source.clone(), score);
        Arc::make_mut(&mut entry.record).label = entry.verdicts.label();
        // Before that its joules are unknown; publishing counts the feedback so far.
        if entry.published {
            outcome_metrics::count_outcome(&self.metrics, &entry.record, &source, score, before);
        }
        let record = Arc::clone(&entry.record);
        drop(entries);
        self.log_verdict(&record, source, score, comment);
        Some(record)
    }

    /// Logs feedback of `source`, also for a request that is no longer in memory.
    pub fn log_verdict(
        &self,
        record: &Record,
        source: VerdictSource,
        score: f64,
        comment: Option<String>,
    ) {
        let request_id = Arc::clone(&record.receipt.request_id);
        let (version, unix_ms) = (FEEDBACK_VERSION, unix_ms());
        let feedback = Feedback { version, unix_ms, request_id, source, score, comment };
        self.sink.write(LogEntry::Annotation(Annotation::Feedback(feedback)));
    }

    /// The record of a request that is no longer in memory, from the log; `None` if the log has
    /// none. One search at a time; [`Busy`] if the permit is not free in time.
    pub async fn find_in_log(&self, id: &str) -> Result<Option<Record>, Busy> {
        let turn = timeout(SEARCH_DEADLINE, self.searching.acquire()).await;
        let _turn = turn.map_err(|_| Busy)?;
        let (sink, id) = (self.sink.clone(), id.to_owned());
        let found = tokio::task::spawn_blocking(move || lookup::find(sink.dir(), &id)).await;
        match found {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                tracing::warn!(error = %error, "the traffic log cannot be searched");
                Ok(None)
            }
            // Only a runtime that shuts down drops the work.
            Err(_) => Err(Busy),
        }
    }

    /// Records an implicit signal about a request in memory.
    pub fn record_signal(&self, id: &str, signal: ImplicitSignal) {
        let entries = self.lock();
        let Some(entry) = entries.by_id.get(id) else { return };
        outcome_metrics::count_signal(&self.metrics, &entry.record, signal);
        let request_id = Arc::clone(&entry.record.receipt.request_id);
        let (version, unix_ms) = (FEEDBACK_VERSION, unix_ms());
        let signal = Signal { version, unix_ms, request_id, signal };
        self.sink.write(LogEntry::Annotation(Annotation::Signal(signal)));
    }

    /// Settles attempts until the meter stops, then publishes the rest unsettled.
    pub async fn settle_all(&self, mut settlements: Receiver<Settled>) {
        let mut overdue = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                settled = settlements.recv() => match settled {
                    Some(settled) => self.settle(settled),
                    None => break,
                },
                _ = overdue.tick() => self.publish_older_than(SETTLEMENT_DEADLINE),
            }
        }
        self.publish_older_than(Duration::ZERO);
    }

    fn settle(&self, settled: Settled) {
        let mut entries = self.lock();
        let Entries { by_id, prompt_bytes, owners, early, overhead, .. } = &mut *entries;
        let attempt = settled.attempt;
        if let Some((labels, _)) = overhead.remove(&attempt) {
            return self.count_energy(&labels, settled.marginal, "overhead");
        }
        let Some(id) = owners.remove(&attempt) else {
            early.insert(attempt, (settled, Instant::now()));
            return;
        };
        let Some(entry) = by_id.get_mut(&id) else { return };
        if let Some(found) = entry.unsettled.iter().position(|(one, _)| *one == attempt) {
            let (_, place) = entry.unsettled.swap_remove(found);
            let record = Arc::make_mut(&mut entry.record);
            note_energy(&mut record.receipt.attempts[place], &settled);
        }
        self.publish_if_settled(entry, prompt_bytes);
    }

    fn publish_if_settled(&self, entry: &mut Entry, prompt_bytes: &mut usize) {
        if entry.unsettled.is_empty() {
            self.publish(entry, prompt_bytes);
        }
    }

    /// Publishes the oldest requests until the prompts of the others are within their limit.
    fn publish_oldest(&self, entries: &mut Entries) {
        let Entries { by_id, order, prompt_bytes, .. } = entries;
        for id in &*order {
            if *prompt_bytes <= WAITING_PROMPT_BYTES {
                return;
            }
            if let Some(entry) = by_id.get_mut(id) {
                self.publish(entry, prompt_bytes);
            }
        }
    }

    fn publish_older_than(&self, age: Duration) {
        let mut entries = self.lock();
        // An attempt that never ran never settles.
        entries.overhead.retain(|_, (_, begun)| begun.elapsed() < OVERHEAD_DEADLINE);
        entries.early.retain(|_, (_, settled)| settled.elapsed() < SETTLEMENT_DEADLINE);
        let Entries { by_id, prompt_bytes, .. } = &mut *entries;
        for entry in by_id.values_mut().filter(|entry| !entry.published) {
            if entry.ended.elapsed() >= age {
                self.publish(entry, prompt_bytes);
            }
        }
    }

    fn forget_oldest(&self, entries: &mut Entries) {
        let Some(oldest) = entries.order.pop_front() else { return };
        let Some(mut entry) = entries.by_id.remove(&oldest) else { return };
        for (attempt, _) in &entry.unsettled {
            entries.owners.remove(attempt);
        }
        self.publish(&mut entry, &mut entries.prompt_bytes);
    }

    /// Counts and logs a request, once.
    fn publish(&self, entry: &mut Entry, prompt_bytes: &mut usize) {
        if std::mem::replace(&mut entry.published, true) {
            return;
        }
        let unix_ms = entry.record.unix_ms;
        let receipt = &mut Arc::make_mut(&mut entry.record).receipt;
        let totals = Totals::of(&receipt.attempts, &self.emissions, unix_ms);
        receipt.energy = totals.energy;
        receipt.carbon = totals.carbon;
        receipt.electricity_dollars = totals.electricity_dollars;
        let record = &entry.record;
        for attempt in &record.receipt.attempts {
            self.count(attempt);
            self.count_emissions(attempt, unix_ms);
            outcome_metrics::compare_energy(&self.metrics, record, attempt);
        }
        for (source, score) in entry.verdicts.iter() {
            outcome_metrics::count_outcome(&self.metrics, record, source, score, None);
        }
        let logged = match entry.prompt.take() {
            Some((prompt, bytes)) => {
                *prompt_bytes -= bytes;
                Arc::new(Record { prompt: Some(prompt), ..Record::clone(record) })
            }
            None => Arc::clone(record),
        };
        self.sink.write(LogEntry::Record(logged));
    }

    fn count(&self, attempt: &Attempt) {
        let labels =
            ModelLabels { model: Arc::clone(&attempt.model), route: attempt.route.label() };
        let answered = attempt.outcome == AttemptOutcome::Answered;
        let Some(figure) = attempt.energy else { return };
        self.count_energy(&labels, figure, if answered { "answer" } else { "wasted" });
        if let Some((amortised, joules)) = attempt.amortised_joules.zip(figure.joules) {
            let idle = (amortised.0 - joules.0).max(0.0);
            self.metrics.request_idle_energy_joules_total.get_or_create(&labels).inc_by(idle);
        }
    }

    /// Registers an attempt without a request that the meter will settle.
    pub fn expect_overhead(&self, attempt: AttemptId, labels: ModelLabels) {
        self.lock().overhead.insert(attempt, (labels, Instant::now()));
    }

    /// Counts energy that belongs to no request.
    pub fn count_overhead(&self, labels: &ModelLabels, figure: EnergyFigure) {
        self.count_energy(labels, figure, "overhead");
    }

    fn count_energy(&self, labels: &ModelLabels, figure: EnergyFigure, purpose: &'static str) {
        let Some(joules) = figure.joules else {
            self.metrics.request_energy_unknown_total.get_or_create(labels).inc();
            return;
        };
        let labels = EnergyLabels {
            model: Arc::clone(&labels.model),
            route: labels.route,
            quality: figure.quality.label(),
            source: figure.source.label(),
            purpose,
        };
        self.metrics.request_energy_joules_total.get_or_create(&labels).inc_by(joules.0);
        if let (Some(low), Some(high)) = (figure.low, figure.high) {
            self.metrics.request_energy_low_joules_total.get_or_create(&labels).inc_by(low.0);
            self.metrics.request_energy_high_joules_total.get_or_create(&labels).inc_by(high.0);
        }
    }

    fn count_emissions(&self, attempt: &Attempt, unix_ms: u64) {
        let (model, route) = (Arc::clone(&attempt.model), attempt.route.label());
        if let Some(dollars) = self.emissions.electricity(attempt, unix_ms) {
            let labels = ModelLabels { model: Arc::clone(&model), route };
            self.metrics.electricity_dollars_total.get_or_create(&labels).inc_by(dollars.0);
        }
        let Some(carbon) = self.emissions.carbon(attempt) else { return };
        let labels = CarbonLabels { model, route, quality: carbon.quality.label() };
        if let Some(grams) = carbon.grams {
            self.metrics.carbon_grams_total.get_or_create(&labels).inc_by(grams.0);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock()
    }
}

fn note_energy(attempt: &mut Attempt, settled: &Settled) {
    attempt.energy = Some(settled.marginal);
    attempt.amortised_joules = settled.amortised.joules;
}
