//! The books of one device: which attempt caused which microjoule. Pure integer arithmetic.
//!
//! No clock, no I/O, no floats: time and energy come in as numbers. Whatever comes in late, twice, out of order or
//! not at all, every microjoule the device reported is booked exactly once (`conservation_error` is 0).
//!
//! Per interval with energy ΔE: idle I = min(ΔE, idle power × Δt) is split over the attempts present by time; the rest
//! A = ΔE − I over the attempts worked for, by tokens; what nobody claims is booked as such (DESIGN §5).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::apportion::largest_remainder;
use super::interval::Interval;
use super::load_energy::LoadEnergy;
use crate::energy::work::{TokenWeights, Tokens, WorkSpan};
use crate::units::{AttemptId, Microjoules, MonotonicNs};

/// Where a device's energy went, over its whole life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Active energy split over attempts.
    pub attributed: Microjoules,
    /// Active energy of loading models.
    pub load: Microjoules,
    /// Active energy while no attempt was worked for: the engine's own housekeeping, other processes.
    pub unattributed: Microjoules,
    /// Idle energy while at least one attempt was open.
    pub idle_occupied: Microjoules,
    /// Idle energy with nobody there.
    pub idle_empty: Microjoules,
    /// All energy booked so far: the sum of the five.
    pub total: Microjoules,
}

/// One attempt's part of a device's energy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Active energy: what the attempt added.
    pub marginal: Microjoules,
    /// Its part of the idle energy while it was open.
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

/// Reports that came too late to be booked where they belong. Their energy is not lost: it stays in the books.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LateReports {
    /// Spans that began in an interval already closed; their weight counts in the next open one.
    pub late_spans: u64,
    /// Rows for attempts already settled or never opened; their energy goes to the others or stays unattributed.
    pub dropped_rows: u64,
}

/// The books of one device. Intervals wait in `pending` until [`Ledger::close_until`] says all work in them is known.
#[derive(Clone, Debug)]
pub struct Ledger {
    idle_microwatts: u64,
    account: Account,
    late_reports: LateReports,
    attempts: BTreeMap<AttemptId, AttemptEntry>,
    /// Sum of the shares of attempts that were taken out.
    removed_total: Share,
    spans: Vec<Span>,
    loads: LoadEnergy,
    pending: VecDeque<Interval>,
    closed_until: MonotonicNs,
    /// Energy of all intervals ever received: what the books must add up to.
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
    /// All its work that was reported.
    tokens: Tokens,
    weight: u64,
    /// The part of `weight` in closed intervals, in units of 1 / [`RESOLUTION`].
    booked_weight: u128,
    /// Energy of some of its time was never reported: its share is too small by nobody knows how much.
    incomplete: bool,
}

/// A work span with its rows weighed.
#[derive(Clone, Debug)]
struct Span {
    start: MonotonicNs,
    end: MonotonicNs,
    rows: Vec<(AttemptId, u64)>,
}

/// Parts of a weight are counted this finely, so that a token spread over many intervals keeps its proportions.
const RESOLUTION: u128 = 1 << 20;

impl Ledger {
    /// `idle_microwatts`: the device's power with nothing to do, 0 if unknown.
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

    /// Takes in an interval. Intervals come in order and do not overlap; there may be time between them.
    pub fn interval(&mut self, interval: Interval) {
        self.received += interval.energy;
        self.pending.push_back(interval);
    }

    /// `weights` of the model that works on the attempt. The first opening counts.
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

    /// The first close counts.
    pub fn close(&mut self, attempt: AttemptId, at: MonotonicNs) {
        if let Some(entry) = self.attempts.get_mut(&attempt) {
            entry.closed.get_or_insert(at.max(entry.opened));
        }
    }

    /// Takes in a step of an engine. What of it lies in closed intervals is moved to the next open one.
    pub fn work(&mut self, span: &WorkSpan) {
        if span.start < self.closed_until {
            self.late_reports.late_spans += 1;
        }
        let start = span.start.max(self.closed_until);
        // A span without length still has its weight: it is a point, held by whichever interval contains it.
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

    /// The device used energy from `start` to `end` that no interval holds: whoever was here then has used more than its
    /// share says. To be called when that time is over, before attempts of it are taken out.
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

    /// A model begins to load at this device.
    pub fn load_started(&mut self, model: &Arc<str>, at: MonotonicNs) {
        self.loads.start(model, at);
    }

    /// It has loaded, or given up.
    pub fn load_ended(&mut self, model: &str, at: MonotonicNs) {
        self.loads.end(model, at);
    }

    /// What the loads of each model have taken; adds up to the account's `load`.
    pub fn loads(&self) -> &BTreeMap<Arc<str>, Microjoules> {
        self.loads.totals()
    }

    /// Closes every interval that ends at or before `watermark`: all work up to then must be reported, or given up on.
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

    /// How long of the interval steps were evaluated; those of several engines count each.
    fn worked_ns(&self, interval: Interval) -> u64 {
        self.spans.iter().map(|span| interval.overlap_ns(span.start, span.end)).sum()
    }

    /// Weight of each attempt's work inside the interval, in 1 / [`RESOLUTION`] of a nanojoule; remembers it as booked.
    fn weights_in(&mut self, interval: Interval) -> Vec<(AttemptId, u128)> {
        let mut weights: BTreeMap<AttemptId, u128> = BTreeMap::new();
        for span in &self.spans {
            let overlap = interval.overlap_ns(span.start, span.end);
            if overlap == 0 {
                continue;
            }
            for &(attempt, weight) in &span.rows {
                // An attempt may have been taken out while its last span was still waiting.
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

    /// Whether nothing can change the attempt's share any more, given that all intervals up to `read_until` have come in.
    /// True for an attempt this device does not know.
    pub fn is_final(&self, attempt: AttemptId, read_until: MonotonicNs) -> bool {
        let Some(entry) = self.attempts.get(&attempt) else { return true };
        let Some(closed) = entry.closed else { return false };
        let until = closed.max(entry.last_work);
        read_until >= until && self.pending.front().is_none_or(|next| next.start >= until)
    }

    /// What is attributed to the attempt so far, and the tokens of its work still waiting in open intervals. `None` if it
    /// never was here.
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
        // Without readings no interval closes, and spans would pile up for attempts that are long gone.
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

    /// How far the books are from adding up, in microjoules; anything but 0 is a bug. Checks both identities of DESIGN
    /// §5 against what was received, the second one through the attempts' own shares.
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

/// `weight · overlap / length` in units of 1 / [`RESOLUTION`]. Lengths beyond 2⁴⁴ ns (5 hours) are rounded to fit `u128`.
fn scaled_part(weight: u64, overlap_ns: u64, length_ns: u64) -> u128 {
    let shift = (u64::BITS - length_ns.leading_zeros()).saturating_sub(44);
    let (overlap, length) = (overlap_ns >> shift, (length_ns >> shift).max(1));
    u128::from(weight) * RESOLUTION * u128::from(overlap) / u128::from(length)
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests;
