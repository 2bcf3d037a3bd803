//! Joins devices, engines and attempts: takes in readings and reports, and keeps who was there when.
//!
//! When energy is final is decided in `settlement`; estimates before that are in `estimates`.
//!
//! Pure: readings, reports and the time come in; figures come out. The meter thread is the only writer of readings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::figure::{EnergyFigure, Source};
use super::prediction::estimate::Estimator;
use super::prediction::profile::{Linear, ModelProfile, Profile};
use super::sensors::process::cpu_model::CpuModel;
use super::sensors::sensor::{DeviceInfo, Sample};
use super::work::{TokenWeights, WorkSpan};
use crate::units::{AttemptId, Microjoules, MonotonicNs};
use device::{Device, DeviceSnapshot, Scope};

pub mod apportion;
pub mod device;
mod estimates;
pub mod interval;
pub mod ledger;
pub mod load_energy;
mod settlement;

/// Names a device of the attribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceId(usize);

/// All devices, engines and unsettled attempts of one meter.
#[derive(Debug)]
pub struct Attribution {
    parameters: Parameters,
    devices: Vec<Device>,
    /// End of the last step each engine reported.
    steps: BTreeMap<Arc<str>, MonotonicNs>,
    attempts: BTreeMap<AttemptId, Attempt>,
    estimator: Estimator,
    /// How often each model was loaded.
    loads: BTreeMap<Arc<str>, u64>,
    unknown_settlements: u64,
    /// Models that devices elsewhere work for: nothing here is spent on them.
    elsewhere: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
struct Attempt {
    model: Arc<str>,
    opened: MonotonicNs,
    closed: Option<MonotonicNs>,
    /// An engine has heard of it.
    served: bool,
}

/// The constants of the books.
#[derive(Clone, Debug)]
pub struct Parameters {
    pub cadence: Duration,
    /// Of models that the profile does not know.
    pub weights: TokenWeights,
    pub prior: Linear,
    pub profile: Arc<Profile>,
    pub cpu_model: CpuModel,
    /// What is named as the source of a figure nobody could read.
    pub source: Source,
    /// Engines are metered one by one from their start on: an attempt that none of them saw was not worked on.
    pub per_engine: bool,
}

impl Parameters {
    fn weights_of(&self, model: &str) -> TokenWeights {
        let measured = self.profile.model(model).and_then(ModelProfile::weights);
        measured.unwrap_or(self.weights)
    }
}

/// The energy of one attempt, once nothing can change it any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    pub attempt: AttemptId,
    pub model: Arc<str>,
    /// What the attempt added.
    pub marginal: EnergyFigure,
    /// That plus its share of idle energy.
    pub amortised: EnergyFigure,
}

/// A snapshot of all devices.
#[derive(Clone, Debug, PartialEq)]
pub struct MeterSnapshot {
    pub devices: Vec<DeviceSnapshot>,
    /// Attempts not settled yet.
    pub open_attempts: usize,
    /// Attempts that settled as unknown because a device could not be read in time, or lost energy of theirs.
    pub unknown_settlements: u64,
    /// CPU time that metering has taken.
    pub meter_cpu: Duration,
}

impl MeterSnapshot {
    /// How far all books together are from adding up; anything but 0 is a bug.
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
            elsewhere: BTreeSet::new(),
        }
    }

    /// Adds a device whose sensor counts from 0 at `at`, or continues the books of one with that name.
    pub fn add_device(&mut self, info: DeviceInfo, scope: Scope, at: MonotonicNs) -> DeviceId {
        if let Scope::Elsewhere(models) = &scope {
            self.elsewhere.extend(models.iter().cloned());
        }
        let known = self.devices.iter().position(|device| device.info.name == info.name);
        let index = known.unwrap_or(self.devices.len());
        match self.devices.get_mut(index) {
            Some(device) => device.restart(info, at),
            None => self.devices.push(Device::new(info, scope, at)),
        }
        let device = &mut self.devices[index];
        for (&id, attempt) in &self.attempts {
            let elsewhere = self.elsewhere.contains(&attempt.model);
            if attempt.closed.is_none() && device.scope.covers(&attempt.model, elsewhere) {
                device.ledger.open(id, self.parameters.weights_of(&attempt.model), attempt.opened);
            }
        }
        DeviceId(index)
    }

    /// Whether devices elsewhere work for the model, so that its attempts are metered though it does not run here.
    pub fn meters_elsewhere(&self, model: &str) -> bool {
        self.elsewhere.contains(model)
    }

    fn devices_of(&mut self, model: &str) -> impl Iterator<Item = &mut Device> {
        let elsewhere = self.elsewhere.contains(model);
        self.devices.iter_mut().filter(move |device| device.scope.covers(model, elsewhere))
    }

    /// A good reading of a device at `now`, and how often its counter has started over.
    pub fn reading(&mut self, id: DeviceId, now: MonotonicNs, sample: Sample, resets: u64) {
        let cadence_ns = nanoseconds(self.parameters.cadence);
        let device = &mut self.devices[id.0];
        device.reading(now, sample, cadence_ns);
        device.set_resets(resets);
    }

    /// The machine suspended for `missed` since the last readings.
    pub fn suspended(&mut self, missed: Duration) {
        for device in &mut self.devices {
            device.suspended(missed);
        }
    }

    /// A reading failed: nothing is booked, and the next good one covers the time.
    pub fn read_failed(&mut self, id: DeviceId) {
        self.devices[id.0].read_errors += 1;
    }

    /// The device has ended; its last reading stands.
    pub fn retire(&mut self, id: DeviceId) {
        self.devices[id.0].retire();
    }

    /// The device has ended, and what it used since its last reading nobody will know.
    pub fn lost(&mut self, id: DeviceId, now: MonotonicNs) {
        self.devices[id.0].lost(now);
    }

    /// A model begins to load. Devices that are added for it must be there.
    pub fn load_started(&mut self, model: &Arc<str>, now: MonotonicNs) {
        for device in self.devices_of(model) {
            device.ledger.load_started(model, now);
        }
    }

    /// It has loaded, or its engine has ended. Counts as a load only if it `succeeded`.
    pub fn load_ended(&mut self, model: &Arc<str>, succeeded: bool, now: MonotonicNs) {
        for device in self.devices_of(model) {
            device.ledger.load_ended(model, now);
        }
        if succeeded {
            *self.loads.entry(Arc::clone(model)).or_default() += 1;
        }
    }

    /// Opening twice changes nothing.
    pub fn open(&mut self, model: &Arc<str>, id: AttemptId, now: MonotonicNs) {
        self.attempts.entry(id).or_insert_with(|| Attempt {
            model: Arc::clone(model),
            opened: now,
            closed: None,
            served: true,
        });
        let weights = self.parameters.weights_of(model);
        for device in self.devices_of(model) {
            device.ledger.open(id, weights, now);
        }
    }

    /// A step of the model's engine.
    pub fn work(&mut self, model: &Arc<str>, mut span: WorkSpan, now: MonotonicNs) {
        // No step ends in the future; one that says so would keep attempts from ever being final.
        span.end = span.end.min(now);
        let last = self.steps.entry(Arc::clone(model)).or_insert(span.end);
        *last = span.end.max(*last);
        for device in self.devices_of(model) {
            device.ledger.work(&span);
        }
    }

    /// Closing what is not open, or twice, changes nothing.
    pub fn close(&mut self, model: &str, id: AttemptId, now: MonotonicNs) {
        let Some(attempt) = self.attempts.get_mut(&id) else { return };
        attempt.closed.get_or_insert(now);
        for device in self.devices_of(model) {
            device.ledger.close(id, now);
        }
    }

    /// The attempt ended before an engine heard of it: it has used nothing, and no device needs to be read to know that.
    /// Changes nothing for one that was opened.
    pub fn unserved(&mut self, model: &Arc<str>, id: AttemptId, now: MonotonicNs) {
        self.attempts.entry(id).or_insert_with(|| Attempt {
            model: Arc::clone(model),
            opened: now,
            closed: Some(now),
            served: false,
        });
    }

    /// Whether a device lost energy of the attempt's time.
    fn is_incomplete(&self, id: AttemptId) -> bool {
        self.devices.iter().any(|device| device.ledger.is_incomplete(id))
    }

    /// See [`super::ledger::Ledger::conservation_error`]; must be 0.
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
