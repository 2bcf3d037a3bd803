//! Attribution of energy to attempts: takes in readings of devices and reports of engines, keeps
//! which attempts were open when.
//!
//! `settlement` decides when an attempt's energy is final; `estimates` gives figures before that.
//!
//! Pure: readings, reports and the time are arguments, figures are results. Only the meter thread
//! passes readings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::figure::{EnergyFigure, Source};
use super::prediction::estimate::Estimator;
use super::prediction::profile::{Linear, ModelProfile, Profile};
use super::sensors::process::cpu_model::CpuModel;
use super::sensors::sensor::{DeviceInfo, Sample};
use super::work::{TokenWeights, WorkSpan};
use crate::units::{AttemptId, Microjoules, MonotonicNs};
use device::{Cards, Device, DeviceSnapshot, Reach, Scope};
use shortfall::Tally;

pub mod apportion;
pub mod background;
pub mod device;
mod estimates;
pub mod idle_power;
pub mod interval;
pub mod ledger;
pub mod load_energy;
mod settlement;
pub mod shortfall;

/// Index of a device in its [`Attribution`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceId(usize);

/// All devices, engines and unsettled attempts of one meter.
#[derive(Debug)]
pub struct Attribution {
    parameters: Parameters,
    devices: Vec<Device>,
    /// End of the last step reported by each model's engine.
    steps: BTreeMap<Arc<str>, MonotonicNs>,
    attempts: BTreeMap<AttemptId, Attempt>,
    estimator: Estimator,
    /// Successful loads of each model.
    loads: BTreeMap<Arc<str>, u64>,
    unknown_settlements: u64,
    /// What each model's engine uses; a model without an entry may use everything here.
    reaches: BTreeMap<Arc<str>, Reach>,
}

#[derive(Debug)]
struct Attempt {
    model: Arc<str>,
    opened: MonotonicNs,
    closed: Option<MonotonicNs>,
    /// Whether an engine received it.
    served: bool,
}

/// The constants of an [`Attribution`].
#[derive(Clone, Debug)]
pub struct Parameters {
    pub cadence: Duration,
    /// For models without a profile.
    pub weights: TokenWeights,
    pub prior: Linear,
    pub profile: Arc<Profile>,
    pub cpu_model: CpuModel,
    /// Source label of unknown figures.
    pub source: Source,
    /// Whether each engine is a device of its own from its start on: an attempt that no device
    /// knows then used no energy.
    pub per_engine: bool,
    /// Devices of this machine that were found and cannot be read.
    pub missing: Tally,
}

impl Parameters {
    fn weights_of(&self, model: &str) -> TokenWeights {
        let measured = self.profile.model(model).and_then(ModelProfile::weights);
        measured.unwrap_or(self.weights)
    }
}

/// The final energy of one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    pub attempt: AttemptId,
    pub model: Arc<str>,
    /// Energy that the attempt added.
    pub marginal: EnergyFigure,
    /// Marginal energy plus the attempt's share of idle energy.
    pub amortised: EnergyFigure,
}

/// A snapshot of all devices.
#[derive(Clone, Debug, PartialEq)]
pub struct MeterSnapshot {
    pub devices: Vec<DeviceSnapshot>,
    /// Attempts not settled yet.
    pub open_attempts: usize,
    /// Attempts settled as unknown, because a device could not be read in time or lost energy of
    /// their time.
    pub unknown_settlements: u64,
    /// CPU time of the meter thread.
    pub meter_cpu: Duration,
}

impl MeterSnapshot {
    /// Sum of the devices' conservation errors; anything but 0 is a bug.
    pub fn conservation_error(&self) -> Microjoules {
        self.devices.iter().map(|device| device.conservation_error).sum()
    }
}

impl Attribution {
    pub fn new(parameters: Parameters) -> Self {
        let profile = Arc::clone(&parameters.profile);
        let estimator = Estimator::new(parameters.prior, parameters.cpu_model, profile);
        Self {
            parameters,
            devices: Vec::new(),
            steps: BTreeMap::new(),
            attempts: BTreeMap::new(),
            estimator,
            loads: BTreeMap::new(),
            unknown_settlements: 0,
            reaches: BTreeMap::new(),
        }
    }

    /// Adds a device whose sensor counts from 0 at `at`. A device of the same name continues with
    /// the new sensor.
    pub fn add_device(&mut self, info: DeviceInfo, scope: Scope, at: MonotonicNs) -> DeviceId {
        if let Scope::Elsewhere(models) = &scope {
            for model in models.iter() {
                self.reaches.entry(Arc::clone(model)).or_default().elsewhere = true;
            }
        }
        let known = self.devices.iter().position(|device| device.info.name == info.name);
        let index = known.unwrap_or(self.devices.len());
        match self.devices.get_mut(index) {
            Some(device) => device.restart(info, at),
            None => self.devices.push(Device::new(info, scope, at)),
        }
        let device = &mut self.devices[index];
        for (&id, attempt) in &self.attempts {
            let covers = covers(device, &attempt.model, &self.reaches);
            if attempt.closed.is_none() && covers {
                device.ledger.open(id, self.parameters.weights_of(&attempt.model), attempt.opened);
            }
        }
        DeviceId(index)
    }

    /// Adds a device that stands in for another from `at` on: attempts open before have used energy
    /// that it has not seen.
    pub fn add_substitute(&mut self, info: DeviceInfo, scope: Scope, at: MonotonicNs) -> DeviceId {
        let id = self.add_device(info, scope, at);
        let device = &mut self.devices[id.0];
        device.stands_in = true;
        device.ledger.mark_gap(MonotonicNs(0), at);
        id
    }

    /// Sets the cards that the model's engine uses. Other cards charge nothing to its attempts.
    pub fn uses(&mut self, model: &Arc<str>, cards: Cards) {
        self.reaches.entry(Arc::clone(model)).or_default().cards = cards;
        for device in &mut self.devices {
            if covers(device, model, &self.reaches) {
                continue;
            }
            for (&id, attempt) in &self.attempts {
                if attempt.model == *model {
                    device.ledger.take_out(id, false);
                }
            }
        }
    }

    /// Whether a device on another machine meters the model.
    pub fn meters_elsewhere(&self, model: &str) -> bool {
        self.reaches.get(model).is_some_and(|reach| reach.elsewhere)
    }

    fn devices_of(&mut self, model: &str) -> impl Iterator<Item = &mut Device> {
        let reaches = &self.reaches;
        self.devices.iter_mut().filter(move |device| covers(device, model, reaches))
    }

    /// Takes in a sample read at `now`.
    pub fn reading(&mut self, id: DeviceId, now: MonotonicNs, sample: Sample) {
        let cadence_ns = nanoseconds(self.parameters.cadence);
        self.devices[id.0].reading(now, sample, cadence_ns);
    }

    /// Sets the counts of restarts and of glitches of a device's counter so far.
    pub fn faults(&mut self, id: DeviceId, resets: u64, glitches: u64) {
        self.devices[id.0].set_faults(resets, glitches);
    }

    /// Takes in a sample whose energy since the one before is booked at another device.
    pub fn skip_to(&mut self, id: DeviceId, now: MonotonicNs, sample: Sample) {
        self.devices[id.0].skip_to(now, sample);
    }

    /// Records that the system was suspended for `missed` since the last readings.
    pub fn suspended(&mut self, missed: Duration) {
        for device in &mut self.devices {
            device.suspended(missed);
        }
    }

    /// Counts a failed reading. Nothing is booked; the next good reading covers the time.
    pub fn read_failed(&mut self, id: DeviceId) {
        self.devices[id.0].read_errors += 1;
    }

    /// Ends a device whose last reading was complete.
    pub fn retire(&mut self, id: DeviceId) {
        self.devices[id.0].retire();
    }

    /// Ends a device whose energy since its last reading is unknown.
    pub fn lost(&mut self, id: DeviceId, now: MonotonicNs) {
        self.devices[id.0].lost(now);
    }

    /// Starts a load of the model. Devices of its engine must have been added before.
    pub fn load_started(&mut self, model: &Arc<str>, now: MonotonicNs) {
        for device in self.devices_of(model) {
            device.ledger.load_started(model, now);
        }
    }

    /// Ends a load. Only one that `succeeded` counts as a load in estimates.
    pub fn load_ended(&mut self, model: &Arc<str>, succeeded: bool, now: MonotonicNs) {
        for device in self.devices_of(model) {
            device.ledger.load_ended(model, now);
        }
        if succeeded {
            *self.loads.entry(Arc::clone(model)).or_default() += 1;
        }
    }

    /// Opens an attempt; the first call counts.
    pub fn open(&mut self, model: &Arc<str>, id: AttemptId, now: MonotonicNs) {
        self.attempts.entry(id).or_insert_with(|| Attempt {
            model: Arc::clone(model),
            opened: now,
            closed: None,
            served: true,
        });
        let weights = self.parameters.weights_of(model);
        for device in self.devices_of(model).filter(|device| device.takes_attempts()) {
            device.ledger.open(id, weights, now);
        }
    }

    /// Takes in a step of the model's engine.
    pub fn work(&mut self, model: &Arc<str>, mut span: WorkSpan, now: MonotonicNs) {
        // An end in the future would keep attempts from becoming final.
        span.end = span.end.min(now);
        let last = self.steps.entry(Arc::clone(model)).or_insert(span.end);
        *last = span.end.max(*last);
        for device in self.devices_of(model) {
            device.ledger.work(&span);
        }
    }

    /// Closes an attempt; the first call counts, and an unknown attempt is ignored.
    pub fn close(&mut self, model: &str, id: AttemptId, now: MonotonicNs) {
        let Some(attempt) = self.attempts.get_mut(&id) else { return };
        attempt.closed.get_or_insert(now);
        for device in self.devices_of(model) {
            device.ledger.close(id, now);
        }
    }

    /// Records an attempt that ended before any engine received it: it settles with 0 J, without a
    /// reading. Ignored for an attempt that was opened.
    pub fn unserved(&mut self, model: &Arc<str>, id: AttemptId, now: MonotonicNs) {
        self.attempts.entry(id).or_insert_with(|| Attempt {
            model: Arc::clone(model),
            opened: now,
            closed: Some(now),
            served: false,
        });
    }

    /// Whether energy of the attempt's time was lost at a device.
    fn is_incomplete(&self, id: AttemptId) -> bool {
        self.devices.iter().any(|device| device.ledger.is_incomplete(id))
    }

    /// The devices found for this model that cannot be read at all.
    fn missing_for(&self, model: &str) -> Tally {
        let missing = self.parameters.missing;
        match self.reaches.get(model) {
            Some(reach) if reach.elsewhere => Tally::default(),
            Some(Reach { cards: Cards::None | Cards::Held(_), .. }) => {
                Tally { cards: 0, ..missing }
            }
            _ => missing,
        }
    }

    /// See [`ledger::Ledger::conservation_error`]; must be 0.
    pub fn conservation_error(&self) -> Microjoules {
        self.devices.iter().map(|device| device.ledger.conservation_error()).sum()
    }

    pub fn snapshot(&self, now: MonotonicNs) -> MeterSnapshot {
        MeterSnapshot {
            devices: self.devices.iter().map(|device| device.snapshot(now)).collect(),
            open_attempts: self.attempts.len(),
            unknown_settlements: self.unknown_settlements,
            meter_cpu: Duration::ZERO,
        }
    }
}

fn covers(device: &Device, model: &str, reaches: &BTreeMap<Arc<str>, Reach>) -> bool {
    static ANYTHING: Reach = Reach { elsewhere: false, cards: Cards::Any };
    device.scope.covers(&device.info.name, model, reaches.get(model).unwrap_or(&ANYTHING))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod conservation;
#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests;
