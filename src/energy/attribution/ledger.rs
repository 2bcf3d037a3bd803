//! Ledger of one device: the attempt that caused each microjoule. Pure integer arithmetic.
//!
//! No clock, no I/O, no floats. Reports may be late, duplicated, out of order or missing: every
//! microjoule read from the device is booked exactly once (`conservation_error` is 0).
//!
//! Per interval with energy ΔE: idle I = min(ΔE, idle power × Δt) is divided over the open attempts
//! by time; the rest A = ΔE − I over the attempts worked for, by weighted tokens; energy without an
//! attempt is booked as such (DESIGN §5).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::apportion::largest_remainder;
use super::interval::Interval;
use super::load_energy::LoadEnergy;
use crate::energy::work::{TokenWeights, Tokens, WorkSpan};
use crate::units::{AttemptId, Microjoules, MonotonicNs};

/// Totals of a device's energy by use, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Active energy divided over attempts.
    pub attributed: Microjoules,
    /// Active energy of loading models.
    pub load: Microjoules,
    /// Active energy of times without work for an attempt: engine housekeeping, other processes.
    pub unattributed: Microjoules,
    /// Idle energy while at least one attempt was open.
    pub idle_occupied: Microjoules,
    /// Idle energy while no attempt was open.
    pub idle_empty: Microjoules,
    /// All energy booked so far: the sum of the five.
    pub total: Microjoules,
}

/// One attempt's part of a device's energy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Active energy of the attempt.
    pub marginal: Microjoules,
    /// Part of the idle energy while the attempt was open.
    pub idle: Microjoules,
}

impl Share {
    /// Marginal energy plus the share of idle.
    pub fn amortised(self) -> Microjoules {
        self.marginal + self.idle
    }

    fn add(&mut self, other: Self) {
        self.marginal += other.marginal;
        self.idle += other.idle;
    }
}

/// Reports that arrived after their interval was closed. Their energy is booked, but elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LateReports {
    /// Spans that began in a closed interval; their weight counts in the next open one.
    pub late_spans: u64,
    /// Rows of attempts that had settled or were never opened; their energy goes to other attempts
    /// or stays unattributed.
    pub dropped_rows: u64,
}

/// The ledger of one device. Intervals wait in `pending` until [`Ledger::close_until`] closes them.
#[derive(Clone, Debug)]
pub struct Ledger {
    idle_microwatts: u64,
    account: Account,
    late_reports: LateReports,
    attempts: BTreeMap<AttemptId, AttemptEntry>,
    /// Sum of the shares of attempts taken out.
    removed_total: Share,
    spans: Vec<Span>,
    loads: LoadEnergy,
    pending: VecDeque<Interval>,
    closed_until: MonotonicNs,
    /// Energy of all intervals received, which booked and pending energy must add up to.
    received: Microjoules,
}

/// One attempt at this device.
#[derive(Clone, Copy, Debug)]
struct AttemptEntry {
    opened: MonotonicNs,
    closed: Option<MonotonicNs>,
    last_work: MonotonicNs,
    share: Share,
    weights: TokenWeights,
    /// All work reported for it.
    tokens: Tokens,
    weight: u64,
    /// The part of `weight` in closed intervals, in units of 1 / [`RESOLUTION`].
    booked_weight: u128,
    /// Whether energy of its time was lost: its share is then too small by an unknown amount.
    incomplete: bool,
}

/// A work span with its rows weighed.
#[derive(Clone, Debug)]
struct Span {
    start: MonotonicNs,
    end: MonotonicNs,
    rows: Vec<(AttemptId, u64)>,
}

/// Resolution of parts of a weight: a token spread over many intervals keeps its proportions.
const RESOLUTION: u128 = 1 << 20;

impl Ledger {
    /// `idle_microwatts`: idle power of the device, 0 if unknown.
    pub fn new(idle_microwatts: u64) -> Self {
        Self {
            idle_microwatts,
            account: Account::default(),
            late_reports: LateReports::default(),
            attempts: BTreeMap::new(),
            removed_total: Share::default(),
            spans: Vec::new(),
            loads: LoadEnergy::default(),
            pending: VecDeque::new(),
            closed_until: MonotonicNs(0),
            received: Microjoules::ZERO,
        }
    }

    /// Takes in an interval. Intervals must be in order and must not overlap; gaps between them are
    /// allowed.
    pub fn interval(&mut self, interval: Interval) {
        self.received += interval.energy;
        self.pending.push_back(interval);
    }

    /// Opens an attempt with the token `weights` of its model; the first call counts.
    pub fn open(&mut self, attempt: AttemptId, weights: TokenWeights, at: MonotonicNs) {
        self.attempts.entry(attempt).or_insert(AttemptEntry {
            opened: at,
            closed: None,
            last_work: at,
            share: Share::default(),
            weights,
            tokens: Tokens::default(),
            weight: 0,
            booked_weight: 0,
            incomplete: false,
        });
    }

    /// Closes an attempt; the first call counts.
    pub fn close(&mut self, attempt: AttemptId, at: MonotonicNs) {
        if let Some(entry) = self.attempts.get_mut(&attempt) {
            entry.closed.get_or_insert(at.max(entry.opened));
        }
    }

    /// Takes in a step of an engine. Its part in closed intervals is moved to the next open one.
    pub fn work(&mut self, span: &WorkSpan) {
        if span.start < self.closed_until {
            self.late_reports.late_spans += 1;
        }
        let start = span.start.max(self.closed_until);
        // A span of length 0 keeps its weight: it becomes 1 ns long.
        let end = span.end.max(MonotonicNs(start.0.saturating_add(1)));
        let mut rows = Vec::with_capacity(span.rows.len());
        for row in &span.rows {
            let Some(entry) = self.attempts.get_mut(&row.attempt) else {
                self.late_reports.dropped_rows += 1;
                continue;
            };
            let tokens = row.tokens();
            let weight = entry.weights.weigh(tokens);
            entry.tokens += tokens;
            entry.weight = entry.weight.saturating_add(weight);
            entry.last_work = entry.last_work.max(end);
            rows.push((row.attempt, weight));
        }
        if !rows.is_empty() {
            self.spans.push(Span { start, end, rows });
        }
    }

    /// Records that the device used energy from `start` to `end` that no interval holds: attempts
    /// open then are marked incomplete. Must be called after that time and before those attempts
    /// are taken out.
    pub fn mark_gap(&mut self, start: MonotonicNs, end: MonotonicNs) {
        for entry in self.attempts.values_mut() {
            let until = entry.closed.map_or(end, |closed| closed.max(entry.last_work));
            entry.incomplete |= entry.opened < end && until > start;
        }
    }

    /// Whether energy of the attempt's time was lost.
    pub fn is_incomplete(&self, attempt: AttemptId) -> bool {
        self.attempts.get(&attempt).is_some_and(|entry| entry.incomplete)
    }

    /// Starts a load of the model at this device.
    pub fn load_started(&mut self, model: &Arc<str>, at: MonotonicNs) {
        self.loads.start(model, at);
    }

    /// Ends a load, successful or not.
    pub fn load_ended(&mut self, model: &str, at: MonotonicNs) {
        self.loads.end(model, at);
    }

    /// Energy of the loads of each model; sums to the account's `load`.
    pub fn loads(&self) -> &BTreeMap<Arc<str>, Microjoules> {
        self.loads.totals()
    }

    /// Closes every interval that ends at or before `watermark`. Work up to then that is reported
    /// later counts as late.
    pub fn close_until(&mut self, watermark: MonotonicNs) {
        while let Some(interval) = self.pending.pop_front_if(|next| next.end <= watermark) {
            self.closed_until = interval.end;
            self.book(interval);
            self.spans.retain(|span| span.end > interval.end);
        }
    }

    fn book(&mut self, interval: Interval) {
        let idle = idle_part(interval, self.idle_microwatts);
        let active = interval.energy.saturating_sub(idle);
        let load = self.loads.book(interval, active, self.worked_ns(interval));
        self.account.load += load;
        let active = active.saturating_sub(load);
        match largest_remainder(active.0, &self.weights_in(interval)) {
            None => self.account.unattributed += active,
            Some(shares) => {
                for (attempt, share) in shares {
                    self.account.attributed += Microjoules(share);
                    self.credit(
                        attempt,
                        Share { marginal: Microjoules(share), ..Share::default() },
                    );
                }
            }
        }
        match largest_remainder(idle.0, &self.presence_in(interval)) {
            None => self.account.idle_empty += idle,
            Some(shares) => {
                for (attempt, share) in shares {
                    self.account.idle_occupied += Microjoules(share);
                    self.credit(attempt, Share { idle: Microjoules(share), ..Share::default() });
                }
            }
        }
        self.account.total += interval.energy;
    }

    /// Time of the interval in which steps were evaluated, summed over engines.
    fn worked_ns(&self, interval: Interval) -> u64 {
        self.spans.iter().map(|span| interval.overlap_ns(span.start, span.end)).sum()
    }

    /// Weight of each attempt's work inside the interval, in 1 / [`RESOLUTION`] of a nanojoule;
    /// marks it as booked.
    fn weights_in(&mut self, interval: Interval) -> Vec<(AttemptId, u128)> {
        let mut weights: BTreeMap<AttemptId, u128> = BTreeMap::new();
        for span in &self.spans {
            let overlap = interval.overlap_ns(span.start, span.end);
            if overlap == 0 {
                continue;
            }
            for &(attempt, weight) in &span.rows {
                // An attempt may have been taken out while its last span was pending.
                let Some(entry) = self.attempts.get_mut(&attempt) else { continue };
                let part = scaled_part(weight, overlap, span.end - span.start);
                entry.booked_weight = entry.booked_weight.saturating_add(part);
                let sum = weights.entry(attempt).or_default();
                *sum = sum.saturating_add(part);
            }
        }
        weights.into_iter().collect()
    }

    /// Nanoseconds each attempt was open inside the interval.
    fn presence_in(&self, interval: Interval) -> Vec<(AttemptId, u128)> {
        self.attempts
            .iter()
            .map(|(&attempt, entry)| {
                let end = entry.closed.unwrap_or(interval.end);
                (attempt, u128::from(interval.overlap_ns(entry.opened, end)))
            })
            .collect()
    }

    fn credit(&mut self, attempt: AttemptId, share: Share) {
        if let Some(entry) = self.attempts.get_mut(&attempt) {
            entry.share.add(share);
        }
    }

    /// Whether the attempt's share is final, given that all intervals up to `read_until` were
    /// received. True for an attempt unknown to this device.
    pub fn is_final(&self, attempt: AttemptId, read_until: MonotonicNs) -> bool {
        let Some(entry) = self.attempts.get(&attempt) else { return true };
        let Some(closed) = entry.closed else { return false };
        let until = closed.max(entry.last_work);
        read_until >= until && self.pending.front().is_none_or(|next| next.start >= until)
    }

    /// The attempt's share so far, and the tokens of its work in open intervals. `None` for an
    /// attempt unknown to this device.
    pub fn share(&self, attempt: AttemptId) -> Option<(Share, Tokens)> {
        let entry = self.attempts.get(&attempt)?;
        let booked = u64::try_from(entry.booked_weight / RESOLUTION).unwrap_or(u64::MAX);
        let waiting = entry.weight.saturating_sub(booked);
        Some((entry.share, entry.tokens.part(waiting, entry.weight)))
    }

    /// Takes the attempt out and returns its share and the tokens of all its work.
    pub fn take_out(&mut self, attempt: AttemptId) -> Option<(Share, Tokens)> {
        let entry = self.attempts.remove(&attempt)?;
        self.removed_total.add(entry.share);
        // Without readings no interval closes, and spans of removed attempts would accumulate.
        self.spans
            .retain(|span| span.rows.iter().any(|(other, _)| self.attempts.contains_key(other)));
        Some((entry.share, entry.tokens))
    }

    pub fn account(&self) -> Account {
        self.account
    }

    pub fn late_reports(&self) -> LateReports {
        self.late_reports
    }

    /// Energy received and not booked yet.
    pub fn pending(&self) -> Microjoules {
        self.pending.iter().map(|interval| interval.energy).sum()
    }

    /// Difference between received and booked energy; anything but 0 is a bug. Checks both
    /// identities of DESIGN §5, the second one through the shares of the attempts.
    pub fn conservation_error(&self) -> Microjoules {
        let Account { attributed, load, unattributed, idle_occupied, idle_empty, total } =
            self.account;
        let mut shares = self.removed_total;
        for entry in self.attempts.values() {
            shares.add(entry.share);
        }
        let marginal_view = attributed + load + unattributed + idle_occupied + idle_empty;
        let amortised_view = shares.amortised() + load + unattributed + idle_empty;
        let received = total + self.pending();
        let error = marginal_view.0.abs_diff(total.0)
            + amortised_view.0.abs_diff(total.0)
            + received.0.abs_diff(self.received.0)
            + self.loads.totals().values().copied().sum::<Microjoules>().0.abs_diff(load.0);
        Microjoules(error)
    }
}

fn idle_part(interval: Interval, idle_microwatts: u64) -> Microjoules {
    let idle =
        u128::from(idle_microwatts) * u128::from(interval.end - interval.start) / 1_000_000_000;
    interval.energy.min(Microjoules(u64::try_from(idle).unwrap_or(u64::MAX)))
}

/// `weight · overlap / length` in units of 1 / [`RESOLUTION`]. Lengths beyond 2⁴⁴ ns (5 hours) are
/// rounded to fit `u128`.
fn scaled_part(weight: u64, overlap_ns: u64, length_ns: u64) -> u128 {
    let shift = (u64::BITS - length_ns.leading_zeros()).saturating_sub(44);
    let (overlap, length) = (overlap_ns >> shift, (length_ns >> shift).max(1));
    u128::from(weight) * RESOLUTION * u128::from(overlap) / u128::from(length)
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests;
