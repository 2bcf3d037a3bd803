//! One metered device: its ledger, its latest reading and the quality of its readings. Pure:
//! readings and times are arguments.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::interval::Interval;
use super::ledger::{Account, LateReports, Ledger};
use crate::energy::figure::EnergyFigure;
use crate::energy::sensors::sensor::{DeviceInfo, Sample};
use crate::units::{Joules, Microjoules, MonotonicNs, Watts};

/// A device. Its ledger outlives its sensor: a restarted engine continues it.
#[derive(Debug)]
pub struct Device {
    pub info: DeviceInfo,
    pub scope: Scope,
    pub ledger: Ledger,
    pub read_errors: u64,
    last: Reading,
    /// Time of the last good read. Its sample may be older.
    asked: MonotonicNs,
    /// Whether the next sample misses energy.
    in_doubt: bool,
    live: bool,
    resets: u64,
    gap_ns: u64,
    recent: VecDeque<Reading>,
}

/// The engines whose work a device does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// None: all its energy is overhead (the gateway's own process).
    Overhead,
    /// All engines on this machine (a CPU package).
    AllEngines,
    /// The engines of these models, on another machine.
    Elsewhere(Arc<[Arc<str>]>),
    /// The engine of one model.
    Engine(Arc<str>),
}

impl Scope {
    /// Whether the device works for `model`; `elsewhere` if that runs on another machine.
    pub fn covers(&self, model: &str, elsewhere: bool) -> bool {
        match self {
            Self::Overhead => false,
            Self::AllEngines => !elsewhere,
            Self::Engine(own) => **own == *model,
            Self::Elsewhere(models) => models.iter().any(|own| **own == *model),
        }
    }
}

/// A snapshot of one device.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceSnapshot {
    pub info: DeviceInfo,
    pub scope: Scope,
    pub account: Account,
    /// Energy of the loads of each model; sums to `account.load`.
    pub loads: BTreeMap<Arc<str>, Microjoules>,
    /// Energy read but not booked yet, because work of that time may still be reported.
    pub pending: Microjoules,
    /// Mean power over about the last second; `None` without recent readings.
    pub watts: Option<Watts>,
    /// Whether it is being read; false once its process has ended.
    pub live: bool,
    pub read_errors: u64,
    /// Resets of its hardware counter.
    pub resets: u64,
    /// Time without readings: between readings more than two cadences apart, less one cadence each,
    /// and suspended.
    pub gap: Duration,
    pub late_reports: LateReports,
    /// Must be 0.
    pub conservation_error: Microjoules,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    at: MonotonicNs,
    total: Microjoules,
}

const SECOND_NS: u64 = 1_000_000_000;

impl Device {
    /// A device whose sensor counts from 0 at `at`.
    pub fn new(info: DeviceInfo, scope: Scope, at: MonotonicNs) -> Self {
        let ledger = Ledger::new(microwatts(info.idle));
        let start = Reading { at, total: Microjoules::ZERO };
        Self {
            info,
            scope,
            ledger,
            read_errors: 0,
            last: start,
            asked: at,
            in_doubt: false,
            live: true,
            resets: 0,
            gap_ns: 0,
            recent: VecDeque::from([start]),
        }
    }

    /// Replaces the sensor after a restart of the engine; the new one counts from 0 at `at`. The
    /// ledger continues.
    pub fn restart(&mut self, info: DeviceInfo, at: MonotonicNs) {
        self.info = info;
        // Intervals must not overlap.
        self.last = Reading { at: at.max(self.last.at), total: Microjoules::ZERO };
        self.asked = self.last.at;
        self.live = true;
        self.recent = VecDeque::from([self.last]);
    }

    /// Takes in a sample read at `now`. A sample no later than the one before is ignored: the next
    /// one covers its time.
    pub fn reading(&mut self, now: MonotonicNs, sample: Sample, cadence_ns: u64) {
        if now - self.asked > cadence_ns.saturating_mul(2) {
            self.gap_ns += (now - self.asked) - cadence_ns;
        }
        self.asked = now.max(self.asked);
        let Sample { at, total, whole } = sample;
        if at <= self.last.at {
            return;
        }
        if std::mem::take(&mut self.in_doubt) || !whole {
            self.ledger.mark_gap(self.last.at, at);
        }
        let total = total.max(self.last.total);
        let energy = total.saturating_sub(self.last.total);
        self.ledger.interval(Interval { start: self.last.at, end: at, energy });
        self.last = Reading { at, total };
        self.recent.push_back(self.last);
        while self.recent.get(1).is_some_and(|next| at - next.at >= SECOND_NS) {
            self.recent.pop_front();
        }
    }

    /// Records a suspension of `missed` since the last sample: the next sample is not reliable for
    /// that time.
    pub fn suspended(&mut self, missed: Duration) {
        self.in_doubt = true;
        self.gap_ns =
            self.gap_ns.saturating_add(u64::try_from(missed.as_nanos()).unwrap_or(u64::MAX));
    }

    pub fn set_resets(&mut self, resets: u64) {
        self.resets = resets;
    }

    /// Ends the device; its last reading was complete.
    pub fn retire(&mut self) {
        self.live = false;
        self.recent.clear();
    }

    /// Ends the device without a last reading: attempts open since the one before are marked
    /// incomplete.
    pub fn lost(&mut self, now: MonotonicNs) {
        self.ledger.mark_gap(self.last.at, now);
        self.retire();
    }

    /// The time up to which all energy has been read.
    pub fn read_until(&self) -> MonotonicNs {
        if self.live { self.last.at } else { MonotonicNs(u64::MAX) }
    }

    /// An amount of this device's energy with its quality and band.
    pub fn figure(&self, amount: Microjoules, is_final: bool) -> EnergyFigure {
        let joules = amount.joules();
        EnergyFigure {
            joules: Some(joules),
            low: Some(Joules(joules.0 * self.info.band.low)),
            high: Some(Joules(joules.0 * self.info.band.high)),
            quality: self.info.quality,
            source: self.info.source,
            is_final,
        }
    }

    pub fn snapshot(&self, now: MonotonicNs) -> DeviceSnapshot {
        DeviceSnapshot {
            info: self.info.clone(),
            scope: self.scope.clone(),
            account: self.ledger.account(),
            loads: self.ledger.loads().clone(),
            pending: self.ledger.pending(),
            watts: self.watts(now),
            live: self.live,
            read_errors: self.read_errors,
            resets: self.resets,
            gap: Duration::from_nanos(self.gap_ns),
            late_reports: self.ledger.late_reports(),
            conservation_error: self.ledger.conservation_error(),
        }
    }

    fn watts(&self, now: MonotonicNs) -> Option<Watts> {
        let (first, last) = (self.recent.front()?, self.recent.back()?);
        let elapsed_ns = last.at - first.at;
        // A slow device's next sample is due as long after the last as that one was after the one
        // before.
        let stale = now - last.at > 2 * SECOND_NS + elapsed_ns;
        if elapsed_ns == 0 || stale {
            return None;
        }
        let joules = last.total.saturating_sub(first.total).joules().0;
        Some(Watts(joules / (elapsed_ns as f64 / 1e9)))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "validated to be 0 to 10,000 W; a float cast saturates"
)]
fn microwatts(idle: Option<Watts>) -> u64 {
    idle.map_or(0, |watts| (watts.0 * 1e6).round() as u64)
}
