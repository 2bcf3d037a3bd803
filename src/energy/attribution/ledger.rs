//! Ledger of one device: the attempt that caused each microjoule. Pure integer arithmetic.
//!
//! No clock, no I/O, no floats. Reports may be late, duplicated, out of order or missing: every
//! microjoule read from the device is booked exactly once (`conservation_error` is 0).
//!
//! Per interval with energy ΔE: idle I = min(ΔE, idle power × Δt) is divided over the open attempts
//! by time, as far as one was open; the rest A = ΔE − I over the attempts worked for, by weighted
//! tokens. If they worked for a part of the interval, what the device draws without work is left
//! out for the rest of it.
//! Energy without an attempt, and energy that cannot be told apart, is booked as such.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::apportion::largest_remainder;
use super::background::Background;
use super::idle_power::IdlePower;
use super::interval::Interval;
use super::load_energy::LoadEnergy;
use crate::energy::work::{TokenWeights, Tokens, WorkSpan};
use crate::units::{AttemptId, Microjoules, MonotonicNs};

/// Totals of a device's energy by use, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Active energy divided over attempts, without those that settled as unknown.
    pub attributed: Microjoules,
    /// Active energy of loading models.
    pub load: Microjoules,
    /// Active energy of times without work for an attempt: engine housekeeping, other processes.
    pub unattributed: Microjoules,
    /// Idle energy while at least one attempt was open.
    pub idle_occupied: Microjoules,
    /// Idle energy while no attempt was open.
    pub idle_empty: Microjoules,
    /// Energy that was read but cannot be told apart: of intervals with a restart or a gap, and of
    /// attempts that settled as unknown.
    pub unknown: Microjoules,
    /// All energy booked so far: the sum of the six.
    pub total: Microjoules,
}

impl Account {
    /// The sum of all parts, which `total` must be.
    pub fn parts(self) -> Microjoules {
        let Self { attributed, load, unattributed, idle_occupied, idle_empty, unknown, .. } = self;
        attributed + load + unattributed + idle_occupied + idle_empty + unknown
    }
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

/// An attempt's part of a device's energy, with its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenOut {
    pub share: Share,
    /// Marginal energy if other uses of the intervals it shared took as much as they may have.
    pub least: Microjoules,
    /// Marginal energy if those intervals held nothing else.
    pub most: Microjoules,
    /// Tokens of all its work.
    pub tokens: Tokens,
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
    idle: IdlePower,
    /// `None` for a device that only works when it is asked: the process of an engine.
    background: Option<Background>,
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
    least: Microjoules,
    most: Microjoules,
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

/// How the time of an interval was used, in nanoseconds.
struct Times {
    /// In steps, summed over engines.
    steps: u64,
    /// With at least one step.
    worked: u64,
    /// With at least one load.
    loading: u64,
    /// With neither.
    rest: u64,
}

impl Times {
    /// 0 if nothing was worked on.
    fn busy(&self) -> u64 {
        self.worked + self.loading
    }
}

/// Resolution of parts of a weight: a token spread over many intervals keeps its proportions.
const RESOLUTION: u128 = 1 << 20;

impl Ledger {
    /// `shared`: whether the device also works for others than the attempts reported.
    pub fn new(idle: IdlePower, shared: bool) -> Self {
        Self {
            idle,
            background: shared.then(Background::default),
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
            least: Microjoules::ZERO,
            most: Microjoules::ZERO,
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

    /// Whether the attempt was opened at this device.
    pub fn knows(&self, attempt: AttemptId) -> bool {
        self.attempts.contains_key(&attempt)
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
        self.account.total += interval.energy;
        let weights = self.weights_in(interval);
        if !interval.whole {
            self.account.unknown += interval.energy;
            self.loads.book(interval, Microjoules::ZERO, 0);
            return;
        }
        let presence = self.presence_in(interval);
        let times = self.times_in(interval);
        let empty = times.busy() == 0 && presence.iter().all(|(_, ns)| *ns == 0);
        self.idle.observe(interval, empty);
        if times.busy() == 0
            && let Some(background) = &mut self.background
        {
            background.observe(interval.energy, interval.length_ns());
        }
        let idle_power = self.idle.microwatts().unwrap_or(0);
        let idle = interval.energy.min(Microjoules::of_power(idle_power, interval.length_ns()));
        let active = interval.energy.saturating_sub(idle);
        let load = self.loads.book(interval, active, times.steps);
        self.account.load += load;
        self.book_active(&weights, active.saturating_sub(load), &times);
        let present = self.attempts.values();
        let present = present.map(|entry| (entry.opened, entry.closed.unwrap_or(interval.end)));
        let occupied = idle.part(interval.covered_ns(present), interval.length_ns());
        self.book_idle(&presence, occupied);
        self.account.idle_empty += idle.saturating_sub(occupied);
    }

    /// Divides active energy between the attempts worked for and the rest of the interval.
    fn book_active(&mut self, weights: &[(AttemptId, u128)], active: Microjoules, times: &Times) {
        let background = self.background_part(active, times);
        let pool = active.saturating_sub(background);
        let Some(shares) = largest_remainder(pool.0, weights) else {
            self.account.unattributed += active;
            return;
        };
        self.account.unattributed += background;
        let least = match self.background {
            None => pool,
            Some(_) if self.idle.is_awaited() => Microjoules::ZERO,
            Some(_) => pool.min(active.part(times.worked, times.worked + times.rest)),
        };
        let upper = largest_remainder(active.0, weights).unwrap_or_default();
        for ((attempt, share), (_, most)) in shares.into_iter().zip(upper) {
            self.account.attributed += Microjoules(share);
            if let Some(entry) = self.attempts.get_mut(&attempt) {
                entry.share.marginal += Microjoules(share);
                entry.least += least.part(share, pool.0);
                entry.most += Microjoules(most.max(share));
            }
        }
    }

    /// The part of active energy that the device used while it worked for no attempt.
    fn background_part(&self, active: Microjoules, times: &Times) -> Microjoules {
        let Some(background) = self.background else { return Microjoules::ZERO };
        let by_time = active.part(times.rest, times.worked + times.rest);
        let idle = self.idle.microwatts();
        // Above a known idle power, work is all that is known to use energy.
        let unseen = if idle.is_some() { Microjoules::ZERO } else { by_time };
        let rest = background.energy_above(idle.unwrap_or(0), times.rest).unwrap_or(unseen);
        // While it works, a device draws no less than before: a counter that moves in steps would
        // otherwise leave nothing to a short request.
        rest.min(by_time)
    }

    fn book_idle(&mut self, presence: &[(AttemptId, u128)], idle: Microjoules) {
        let Some(shares) = largest_remainder(idle.0, presence) else {
            self.account.idle_empty += idle;
            return;
        };
        for (attempt, share) in shares {
            self.account.idle_occupied += Microjoules(share);
            if let Some(entry) = self.attempts.get_mut(&attempt) {
                entry.share.idle += Microjoules(share);
            }
        }
    }

    fn times_in(&self, interval: Interval) -> Times {
        let spans = || self.spans.iter().map(|span| (span.start, span.end));
        let loads = self.loads.spans(interval.end);
        let (worked, loading) = (interval.covered_ns(spans()), interval.covered_ns(loads.clone()));
        // Most intervals have no load, and sorting all steps once is enough.
        let busy = if loading == 0 { worked } else { interval.covered_ns(spans().chain(loads)) };
        let steps = spans().map(|(start, end)| interval.overlap_ns(start, end)).sum();
        Times { steps, worked, loading, rest: interval.length_ns() - busy }
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

    /// Takes the attempt out. The energy of one that is not `known` becomes unknown.
    pub fn take_out(&mut self, attempt: AttemptId, known: bool) -> Option<TakenOut> {
        let entry = self.attempts.remove(&attempt)?;
        let mut kept = entry.share;
        if !known {
            let lost = std::mem::take(&mut kept.marginal);
            self.account.attributed = self.account.attributed.saturating_sub(lost);
            self.account.unknown += lost;
        }
        self.removed_total.add(kept);
        // Without readings no interval closes, and spans of removed attempts would accumulate.
        self.spans
            .retain(|span| span.rows.iter().any(|(other, _)| self.attempts.contains_key(other)));
        let AttemptEntry { share, least, most, tokens, .. } = entry;
        Some(TakenOut { share, least, most, tokens })
    }

    /// Marginal energy of attempts that were not taken out yet.
    pub fn unsettled(&self) -> Microjoules {
        self.attempts.values().map(|entry| entry.share.marginal).sum()
    }

    pub fn idle_power(&self) -> &IdlePower {
        &self.idle
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

    /// Difference between received and booked energy; anything but 0 is a bug. Checks that the
    /// parts add up, and that what is attributed is what the attempts have.
    pub fn conservation_error(&self) -> Microjoules {
        let account = self.account;
        let mut shares = self.removed_total;
        for entry in self.attempts.values() {
            shares.add(entry.share);
        }
        let received = account.total + self.pending();
        let error = account.parts().0.abs_diff(account.total.0)
            + shares.marginal.0.abs_diff(account.attributed.0)
            + shares.idle.0.abs_diff(account.idle_occupied.0)
            + received.0.abs_diff(self.received.0)
            + self.loads.totals().values().copied().sum::<Microjoules>().0.abs_diff(account.load.0);
        Microjoules(error)
    }
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
