//! The sensors that the meter reads: which of them count, and what stands for those that cannot be
//! read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::probe::Probe;
use crate::energy::attribution::Attribution;
use crate::energy::attribution::device::{Cards, Scope};
use crate::energy::sensors::mirrors::{Mirrors, Relation};
use crate::energy::sensors::process::cgroup;
use crate::energy::sensors::process::cpu_model::CpuModel;
use crate::energy::sensors::sensor::Sensor;
use crate::units::MonotonicNs;

/// All probes, and the engines whose CPU time can be read.
#[derive(Debug)]
pub(super) struct Probes {
    pub(super) list: Vec<Probe>,
    pub(super) mirrors: Mirrors,
    /// Running engines.
    pub(super) engines: Vec<Engine>,
    pub(super) processes: Processes,
    /// When CPU time is read.
    pub(super) cpu_time: CpuTime,
    /// Whether CPU time stands for the processor's sensors now.
    pub(super) substituting: bool,
}

/// An engine process.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    pub(super) model: Arc<str>,
    pub(super) pid: u32,
    /// Whether the cards that it holds memory on are to be looked up.
    pub(super) look_for_cards: bool,
}

/// When the CPU time of processes is metered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CpuTime {
    Never,
    /// While no sensor of the processor can be read.
    Substitute,
    Always,
}

/// Where processes are read, and what their CPU time means.
#[derive(Clone, Debug)]
pub(super) struct Processes {
    pub(super) sysfs_root: PathBuf,
    pub(super) proc_root: PathBuf,
    pub(super) model: CpuModel,
}

impl Processes {
    pub(super) fn sensor(&self, engine: &Engine) -> Box<dyn Sensor> {
        let name = format!("engine:{}", engine.model).into();
        let (sysfs, proc) = (&self.sysfs_root, &self.proc_root);
        let mut sensor = cgroup::engine_sensor(name, sysfs, proc, engine.pid, self.model);
        // Reads the start time, by which a later process with the same pid is detected. Not booked.
        drop(sensor.read());
        sensor
    }
}

impl Probes {
    /// Compares the counters that may be one, and starts to count those that are not.
    pub(super) fn tell_mirrors(&mut self, attribution: &mut Attribution) {
        if self.mirrors.is_empty() {
            return;
        }
        let raw: BTreeMap<Arc<str>, u64> = self
            .list
            .iter()
            .filter_map(|one| {
                Some((Arc::clone(&one.sensor.device().name), one.sensor.raw_count()?))
            })
            .collect();
        self.mirrors.compare(|name| raw.get(name).copied());
        for probe in self.list.iter_mut().filter(|probe| probe.device.is_none()) {
            let info = probe.sensor.device();
            if self.mirrors.relation(&info.name) == Relation::Own {
                let scope = probe.scope.clone();
                probe.device = Some(attribution.add_device(info.clone(), scope, probe.since));
            }
        }
    }

    /// Lets CPU time stand for the processor's sensors while none of them can be read.
    pub(super) fn substitute(&mut self, attribution: &mut Attribution, now: MonotonicNs) {
        if self.cpu_time != CpuTime::Substitute {
            return;
        }
        let mut processors = self.list.iter().filter(|probe| probe.covers_processor());
        let all_out = processors.clone().count() > 0 && processors.all(|probe| probe.is_out(now));
        match (self.substituting, all_out) {
            (false, true) => {
                tracing::warn!(
                    "no sensor of the processor can be read: energy is estimated from CPU time until one can"
                );
                for probe in self.list.iter_mut().filter(|probe| probe.covers_processor()) {
                    probe.replaced = true;
                }
                for engine in &self.engines {
                    let sensor = self.processes.sensor(engine);
                    self.list.push(substitute(attribution, engine, sensor, now));
                }
            }
            (true, false) => {
                self.list.retain(|probe| {
                    let substitute = probe.pid.is_some();
                    if let Some(id) = probe.device.filter(|_| substitute) {
                        attribution.retire(id);
                    }
                    !substitute
                });
            }
            _ => return,
        }
        self.substituting = all_out;
    }

    /// Looks up the cards that engines hold memory on, once after each load.
    pub(super) fn look_for_cards(&mut self, attribution: &mut Attribution) {
        for engine in self.engines.iter_mut().filter(|engine| engine.look_for_cards) {
            engine.look_for_cards = false;
            let held = |probe: &Probe| {
                let holds = probe.sensor.holders()?.contains(&engine.pid);
                holds.then(|| Arc::clone(&probe.sensor.device().name))
            };
            let cards: BTreeSet<Arc<str>> = self.list.iter().filter_map(held).collect();
            // A container sees other numbers of processes than the driver.
            if !cards.is_empty() {
                attribution.uses(&engine.model, Cards::Held(cards));
            }
        }
    }
}

/// The probe of an engine whose CPU time stands for the processor from `at` on. The process counts
/// from its start: what it used before belongs to the sensor that could be read then.
pub(super) fn substitute(
    attribution: &mut Attribution,
    engine: &Engine,
    mut sensor: Box<dyn Sensor>,
    at: MonotonicNs,
) -> Probe {
    let scope = Scope::Engine(Arc::clone(&engine.model));
    let id = attribution.add_substitute(sensor.device().clone(), scope.clone(), at);
    if let Ok(sample) = sensor.read() {
        attribution.skip_to(id, sample.at, sample);
    }
    Probe {
        device: Some(id),
        since: at,
        scope,
        pid: Some(engine.pid),
        sensor,
        failing_since: None,
        replaced: false,
    }
}
