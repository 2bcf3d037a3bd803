//! State shared by the meter thread and the handles: the sensors being read and the attribution
//! they feed.

use std::process;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;

use super::error::MeterError;
use super::probe::Probe;
use super::probes::{CpuTime, Engine, Probes, Processes, substitute};
use crate::energy::attribution::device::{Cards, Scope};
use crate::energy::attribution::{Attribution, Parameters};
use crate::energy::config::{Config, SensorChoice};
use crate::energy::discovery::{self, Discovery, power, refusals};
use crate::energy::figure::Source;
use crate::energy::grid::rates::Rates;
use crate::energy::polling::poller::Poller;
use crate::energy::prediction::profile::Profile;
use crate::energy::sensors::coverage::Coverage;
use crate::energy::sensors::mirrors::{Mirrors, Relation};
use crate::energy::sensors::process::stat::{self, ProcessSensor};
use crate::energy::sensors::sensor::Sensor;
use crate::units::MonotonicNs;

/// Lock order: probes, then attribution.
#[derive(Debug)]
pub(super) struct MeterState {
    /// The meter thread holds this lock while it reads files; requests never take it.
    pub(super) probes: Mutex<Probes>,
    pub(super) attribution: Mutex<Attribution>,
    profile: Arc<Profile>,
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
            missing: found.missing(),
        };
        let probes = Probes {
            list: Vec::new(),
            mirrors: Mirrors::starting_at(&power::starts(&found.used)),
            engines: Vec::new(),
            processes: Processes {
                sysfs_root: config.sysfs_root.clone(),
                proc_root: config.proc_root.clone(),
                model: config.cpu_model(),
            },
            cpu_time: cpu_time(config, &found),
            substituting: false,
        };
        let state = Self {
            probes: Mutex::new(probes),
            attribution: Mutex::new(Attribution::new(parameters)),
            profile,
            rates,
            busy_ns: AtomicU64::new(0),
        };
        state.add_first_probes(config, found);
        Ok((state, pollers))
    }

    /// Adds the selected sensors and, where processes are metered, the gateway's own; engines
    /// follow as they start.
    fn add_first_probes(&self, config: &Config, found: Discovery) {
        let mut probes = self.probes.lock();
        for used in found.used {
            let scope = match used.coverage {
                Coverage::Elsewhere => Scope::Elsewhere(used.models.into()),
                place => Scope::Shared(place),
            };
            let own = probes.mirrors.relation(&used.sensor.device().name) == Relation::Own;
            let probe = self.probe(used.sensor, scope, None, own);
            probes.list.push(probe);
        }
        if probes.cpu_time == CpuTime::Always {
            let (name, root) = ("gateway".into(), &config.proc_root);
            let sensor = ProcessSensor::new(name, root, process::id(), config.cpu_model());
            let probe = self.probe(Box::new(sensor), Scope::Overhead, None, true);
            probes.list.push(probe);
        }
    }

    /// Adds an engine process. Where processes are metered, its sensor replaces that of the model's
    /// process before.
    pub(super) fn add_engine(&self, model: &Arc<str>, pid: u32) {
        let mut probes = self.probes.lock();
        let engine = Engine { model: Arc::clone(model), pid, look_for_cards: false };
        probes.engines.retain(|one| one.model != *model);
        probes.engines.push(engine.clone());
        let metered = match probes.cpu_time {
            CpuTime::Never => false,
            CpuTime::Substitute => probes.substituting,
            CpuTime::Always => true,
        };
        if !metered {
            return;
        }
        let scope = Scope::Engine(Arc::clone(model));
        let sensor = probes.processes.sensor(&engine);
        self.end(&mut probes.list, |probe| probe.scope == scope);
        let probe = if probes.substituting {
            substitute(&mut self.attribution.lock(), &engine, sensor, MonotonicNs::now())
        } else {
            self.probe(sensor, scope, Some(pid), true)
        };
        probes.list.push(probe);
    }

    /// Notes that an engine has loaded its model, and with it taken the memory of its cards.
    pub(super) fn engine_ready(&self, model: &Arc<str>) {
        let mut probes = self.probes.lock();
        for engine in probes.engines.iter_mut().filter(|engine| engine.model == *model) {
            engine.look_for_cards = true;
        }
    }

    /// Takes a last reading of an engine's process and removes its sensor.
    pub(super) fn remove_engine(&self, model: &Arc<str>, pid: u32) {
        let scope = Scope::Engine(Arc::clone(model));
        let mut probes = self.probes.lock();
        probes.engines.retain(|one| one.pid != pid);
        self.end(&mut probes.list, |probe| probe.scope == scope && probe.pid == Some(pid));
    }

    /// Sets whether a model's engine uses the cards of this machine.
    pub(super) fn uses_cards(&self, model: &Arc<str>, uses: bool) {
        let cards = if uses { Cards::Any } else { Cards::None };
        self.attribution.lock().uses(model, cards);
    }

    /// `own`: whether its counter is known to be no other one's.
    fn probe(&self, sensor: Box<dyn Sensor>, scope: Scope, pid: Option<u32>, own: bool) -> Probe {
        let sensor = match &self.profile.calibration {
            Some(calibration) => calibration.apply(sensor),
            None => sensor,
        };
        let (info, since) = (sensor.device().clone(), MonotonicNs::now());
        let device = own.then(|| self.attribution.lock().add_device(info, scope.clone(), since));
        Probe { device, since, scope, pid, sensor, failing_since: None, replaced: false }
    }

    /// Removes the probes that have ended. The last reading is booked; without one, the energy
    /// since the reading before is unknown.
    fn end(&self, probes: &mut Vec<Probe>, ended: impl Fn(&Probe) -> bool) {
        for mut probe in probes.extract_if(.., |probe| ended(probe)) {
            let Some(device) = probe.device else { continue };
            let reading = probe.sensor.read();
            let (mut attribution, now) = (self.attribution.lock(), MonotonicNs::now());
            match reading {
                Ok(sample) => {
                    attribution.reading(device, now, sample);
                    attribution.retire(device);
                }
                Err(_) => attribution.lost(device, now),
            }
        }
    }
}

/// A sensor that covers the processor contains every process: CPU time on top would count twice, so
/// it only stands for one that cannot be read, and only where the config leaves the choice.
fn cpu_time(config: &Config, found: &Discovery) -> CpuTime {
    let readable = stat::is_own(&config.proc_root).unwrap_or(false);
    if found.cpu_model {
        CpuTime::Always
    } else if config.sensors == SensorChoice::Auto && readable {
        CpuTime::Substitute
    } else {
        CpuTime::Never
    }
}
