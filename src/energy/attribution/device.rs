//! One metered device: its ledger, its latest reading and the quality of its readings. Pure:
//! readings and times are arguments.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::idle_power::IdlePower;
use super::interval::Interval;
use super::ledger::{Account, LateReports, Ledger, TakenOut};
use super::shortfall::Tally;
use crate::energy::figure::EnergyFigure;
use crate::energy::sensors::Coverage;
use crate::energy::sensors::sensor::{DeviceInfo, Sample};
use crate::units::{Joules, Microjoules, MonotonicNs, Watts};

/// A device. Its ledger outlives its sensor: a restarted engine continues it.
#[derive(Debug)]
pub struct Device {
    pub info: DeviceInfo,
    pub scope: Scope,
    pub ledger: Ledger,
    pub read_errors: u64,
    /// Whether it stands for another device as long as it is read.
    pub stands_in: bool,
    last: Reading,
    /// Time of the last good read. Its sample may be older.
    asked: MonotonicNs,
    /// Whether the next sample misses energy.
    in_doubt: bool,
    live: bool,
    resets: u64,
    glitches: u64,
    gap_ns: u64,
    recent: VecDeque<Reading>,
}

/// The engines whose work a device does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// None: all its energy is overhead (the gateway's own process).
    Overhead,
    /// The engines on this machine that use this part of it: all of them, or for a card those that
    /// use it.
    Shared(Coverage),
    /// The engines of these models, on another machine.
    Elsewhere(Arc<[Arc<str>]>),
    /// The engine of one model.
    Engine(Arc<str>),
}

/// What a model's engine uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Whether it runs on another machine.
    pub elsewhere: bool,
    pub cards: Cards,
}

/// The cards that an engine uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cards {
    /// All of this machine, for all that is known.
    #[default]
    Any,
    None,
    /// Those it holds memory on, by device name.
    Held(BTreeSet<Arc<str>>),
}

impl Scope {
    /// Whether the device called `name` works for `model`, which has this reach.
    pub fn covers(&self, name: &str, model: &str, reach: &Reach) -> bool {
        match self {
            Self::Overhead => false,
            Self::Shared(Coverage::Accelerator) => !reach.elsewhere && reach.uses(name),
            Self::Shared(_) => !reach.elsewhere,
            Self::Engine(own) => **own == *model,
            Self::Elsewhere(models) => models.iter().any(|own| **own == *model),
        }
    }
}

impl Reach {
    fn uses(&self, card: &str) -> bool {
        match &self.cards {
            Cards::Any => true,
            Cards::None => false,
            Cards::Held(held) => held.contains(card),
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
    /// The part of `account.attributed` that belongs to attempts without a final figure.
    pub unsettled: Microjoules,
    /// Power that is taken for idle; `None` if it is not known.
    pub idle: Option<Watts>,
    /// Whether the device has drawn less than its configured idle power.
    pub idle_is_too_high: bool,
    /// Energy read but not booked yet, because work of that time may still be reported.
    pub pending: Microjoules,
    /// Mean power over about the last second; `None` without recent readings.
    pub watts: Option<Watts>,
    /// Whether it is being read; false once its process has ended.
    pub live: bool,
    pub read_errors: u64,
    /// Restarts and lasting jumps of its hardware counter.
    pub resets: u64,
    /// Readings that were left out, because the device cannot have reached them.
    pub glitches: u64,
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
/// Time without a good read after which a device no longer holds up attempts that other devices
/// have settled.
const SILENT_NS: u64 = 2_500_000_000;

impl Device {
    /// A device whose sensor counts from 0 at `at`.
    pub fn new(info: DeviceInfo, scope: Scope, at: MonotonicNs) -> Self {
        let configured = info.idle.map(microwatts);
        let (idle, shared) = match scope {
            // The CPU model's figure is above idle, and the process works only when asked.
            Scope::Overhead | Scope::Engine(_) => (IdlePower::known(0), false),
            Scope::Shared(_) => (IdlePower::learned(configured), true),
            Scope::Elsewhere(_) => {
                (configured.map_or(IdlePower::unknown(), IdlePower::known), true)
            }
        };
        let ledger = Ledger::new(idle, shared);
        let start = Reading { at, total: Microjoules::ZERO };
        Self {
            info,
            scope,
            ledger,
            read_errors: 0,
            stands_in: false,
            last: start,
            asked: at,
            in_doubt: false,
            live: true,
            resets: 0,
            glitches: 0,
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
        let whole = !std::mem::take(&mut self.in_doubt) && whole;
        if !whole {
            self.ledger.mark_gap(self.last.at, at);
        }
        let total = total.max(self.last.total);
        let energy = total.saturating_sub(self.last.total);
        self.ledger.interval(Interval { start: self.last.at, end: at, energy, whole });
        self.last = Reading { at, total };
        self.recent.push_back(self.last);
        while self.recent.get(1).is_some_and(|next| at - next.at >= SECOND_NS) {
            self.recent.pop_front();
        }
    }

    /// Goes on from a sample without booking the energy since the one before, which another device
    /// has stood for.
    pub fn skip_to(&mut self, now: MonotonicNs, sample: Sample) {
        if sample.at > self.last.at {
            self.ledger.mark_gap(self.last.at, sample.at);
            self.last = Reading { at: sample.at, total: sample.total.max(self.last.total) };
            self.recent = VecDeque::from([self.last]);
        }
        self.in_doubt = false;
        self.asked = now.max(self.asked);
    }

    /// Whether attempts that begin now use it.
    pub fn takes_attempts(&self) -> bool {
        self.live || !self.stands_in
    }

    /// Whether the device has had no good read for so long that nothing waits for it.
    pub fn is_silent(&self, now: MonotonicNs) -> bool {
        self.live && now - self.asked > SILENT_NS
    }

    /// Counts the device by the part of the machine that it covers.
    pub fn count_in(&self, tally: &mut Tally) {
        match &self.scope {
            Scope::Shared(place) => tally.add(*place),
            Scope::Elsewhere(_) => tally.add(Coverage::Elsewhere),
            Scope::Engine(_) => tally.engines += 1,
            Scope::Overhead => {}
        }
    }

    /// Records a suspension of `missed` since the last sample: the next sample is not reliable for
    /// that time.
    pub fn suspended(&mut self, missed: Duration) {
        self.in_doubt = true;
        self.gap_ns =
            self.gap_ns.saturating_add(u64::try_from(missed.as_nanos()).unwrap_or(u64::MAX));
    }

    pub fn set_faults(&mut self, resets: u64, glitches: u64) {
        (self.resets, self.glitches) = (resets, glitches);
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

    /// The marginal and the amortised energy of a settled attempt. Their bands hold what a slow
    /// device cannot tell from what came before and after.
    pub fn figures(&self, taken: TakenOut) -> (EnergyFigure, EnergyFigure) {
        let TakenOut { share, least, most, .. } = taken;
        let figure = |idle: Microjoules| {
            let (low, high) = ((least + idle).joules().0, (most + idle).joules().0);
            EnergyFigure {
                joules: Some((share.marginal + idle).joules()),
                low: Some(Joules(low * self.info.band.low)),
                high: Some(Joules(high * self.info.band.high)),
                quality: self.info.quality,
                source: self.info.source,
                is_final: true,
            }
        };
        (figure(Microjoules::ZERO), figure(share.idle))
    }

    pub fn snapshot(&self, now: MonotonicNs) -> DeviceSnapshot {
        let idle = self.ledger.idle_power();
        DeviceSnapshot {
            info: self.info.clone(),
            scope: self.scope.clone(),
            account: self.ledger.account(),
            loads: self.ledger.loads().clone(),
            unsettled: self.ledger.unsettled(),
            idle: idle.microwatts().map(|microwatts| Watts(microwatts as f64 / 1e6)),
            idle_is_too_high: idle.is_too_high(),
            pending: self.ledger.pending(),
            watts: self.watts(now),
            live: self.live,
            read_errors: self.read_errors,
            resets: self.resets,
            glitches: self.glitches,
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
fn microwatts(watts: Watts) -> u64 {
    (watts.0 * 1e6).round() as u64
}
