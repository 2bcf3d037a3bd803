//! State shared by the meter thread and the handles: the sensors being read and the attribution
//! they feed.

use std::process;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;

use super::error::MeterError;
use super::probe::Probe;
use crate::energy::attribution::device::Scope;
use crate::energy::attribution::{Attribution, Parameters};
use crate::energy::config::{Config, SensorChoice};
use crate::energy::discovery::{self, Discovery, refusals};
use crate::energy::figure::Source;
use crate::energy::grid::rates::Rates;
use crate::energy::polling::poller::Poller;
use crate::energy::prediction::profile::Profile;
use crate::energy::sensors::discovered::Coverage;
use crate::energy::sensors::process::cgroup;
use crate::energy::sensors::process::stat::ProcessSensor;
use crate::energy::sensors::sensor::Sensor;
use crate::units::MonotonicNs;

/// Lock order: probes, then attribution.
#[derive(Debug)]
pub(super) struct MeterState {
    /// The meter thread holds this lock while it reads files; requests never take it.
    pub(super) probes: Mutex<Vec<Probe>>,
    pub(super) attribution: Mutex<Attribution>,
    profile: Arc<Profile>,
    /// Set when processes are metered by the CPU model.
    process_model: Option<Config>,
    pub(super) rates: Rates,
    /// CPU time of the meter thread, in nanoseconds.
    pub(super) busy_ns: AtomicU64,
}

impl MeterState {
    /// The state, and the tasks that feed polled sensors and rates.
    pub(super) fn new(config: &Config) -> Result<(Self, Vec<Poller>), MeterError> {
        let mut found = match config.sensors {
            SensorChoice::None => Discovery::default(),
            _ => discovery::discover(config),
        };
        if let Some(kind) = config.sensors.kind()
            && !found.meters_here()
        {
            let why = refusals(&found, kind);
            return Err(MeterError::NoSensor { kind: kind.label(), why });
        }
        let used = found.used.iter_mut();
        let mut pollers: Vec<Poller> = used.filter_map(|one| one.sensor.take_poller()).collect();
        let mut rates = Rates::new(&config.carbon, &config.price);
        pollers.extend(rates.take_poller());
        let profile = Arc::new(Profile::configured(config.profile.as_deref())?);
        tracing::info!(sensors = %found, "energy sensors chosen");
        let first = found.used.first().map(|used| used.sensor.device().source);
        let parameters = Parameters {
            cadence: Duration::from_millis(config.cadence_ms),
            weights: config.token_weights(),
            prior: config.prior_cost(),
            profile: Arc::clone(&profile),
            cpu_model: config.cpu_model(),
            source: first.unwrap_or(Source::CpuModel),
            per_engine: found.cpu_model,
        };
        let state = Self {
            probes: Mutex::default(),
            attribution: Mutex::new(Attribution::new(parameters)),
            profile,
            // A sensor that covers the processor contains every process: with the CPU model on top,
            // energy would count twice.
            process_model: found.cpu_model.then(|| config.clone()),
            rates,
            busy_ns: AtomicU64::new(0),
        };
        state.probes.lock().extend(state.first_probes(found));
        Ok((state, pollers))
    }

    /// The selected sensors and, where processes are metered, the gateway's own; engines follow as
    /// they start.
    fn first_probes(&self, found: Discovery) -> Vec<Probe> {
        let gateway = self.process_model.as_ref().map(|config| {
            let (name, root, model) = ("gateway".into(), &config.proc_root, config.cpu_model());
            let sensor = ProcessSensor::new(name, root, process::id(), model);
            self.probe(Box::new(sensor), Scope::Overhead, None)
        });
        let used = found.used.into_iter().map(|used| {
            let scope = match used.coverage {
                Coverage::Elsewhere => Scope::Elsewhere(used.models.into()),
                _ => Scope::AllEngines,
            };
            self.probe(used.sensor, scope, None)
        });
        used.chain(gateway).collect()
    }

    /// Adds a sensor of an engine's process, which replaces that of the model's process before;
    /// nothing unless processes are metered.
    pub(super) fn add_engine(&self, model: &Arc<str>, pid: u32) {
        let Some(config) = &self.process_model else { return };
        let name = format!("engine:{model}").into();
        let (sysfs, proc) = (&config.sysfs_root, &config.proc_root);
        let mut sensor = cgroup::engine_sensor(name, sysfs, proc, pid, config.cpu_model());
        // Reads the start time, by which a later process with the same pid is detected. Not booked.
        drop(sensor.read());
        let mut probes = self.probes.lock();
        let scope = Scope::Engine(Arc::clone(model));
        self.end(&mut probes, |probe| probe.scope == scope);
        probes.push(self.probe(sensor, scope, Some(pid)));
    }

    /// Takes a last reading of an engine's process and removes its sensor.
    pub(super) fn remove_engine(&self, model: &Arc<str>, pid: u32) {
        let scope = Scope::Engine(Arc::clone(model));
        let mut probes = self.probes.lock();
        self.end(&mut probes, |probe| probe.scope == scope && probe.pid == Some(pid));
    }

    fn probe(&self, sensor: Box<dyn Sensor>, scope: Scope, pid: Option<u32>) -> Probe {
        let sensor = match &self.profile.calibration {
            Some(calibration) => calibration.apply(sensor),
            None => sensor,
        };
        let info = sensor.device().clone();
        let device = self.attribution.lock().add_device(info, scope.clone(), MonotonicNs::now());
        Probe { device, scope, pid, sensor, failing: false }
    }

    /// Removes the probes that have ended. The last reading is booked; without one, the energy
    /// since the reading before is unknown.
    fn end(&self, probes: &mut Vec<Probe>, ended: impl Fn(&Probe) -> bool) {
        for mut probe in probes.extract_if(.., |probe| ended(probe)) {
            let reading = probe.sensor.read();
            let (mut attribution, now) = (self.attribution.lock(), MonotonicNs::now());
            match reading {
                Ok(sample) => {
                    attribution.reading(probe.device, now, sample, probe.sensor.resets());
                    attribution.retire(probe.device);
                }
                Err(_) => attribution.lost(probe.device, now),
            }
        }
    }
}
