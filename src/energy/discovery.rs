//! Discovery of all energy sensors of a machine, and the selection of those to use.
//!
//! Reads each device once or twice.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::attribution::shortfall::Tally;
use super::config::{Config, SensorChoice};
use super::figure::Quality;
use super::sensors::coverage::Coverage;
use super::sensors::discovered::{Discovered, Kind, SkipReason, info};
use super::sensors::library::{apple, nvml};
use super::sensors::process::stat;
use super::sensors::remote::{prometheus, wall};
use super::sensors::sensor::{Band, Sensor};
use super::sensors::sysfs::{battery, hwmon, ina3221, rapl};

pub mod power;
mod selection;

/// All devices found, and the selected sensors.
#[derive(Default)]
pub struct Discovery {
    pub findings: Vec<Finding>,
    pub used: Vec<SelectedSensor>,
    /// Whether processes are metered by their CPU time, because no selected sensor covers the
    /// processor.
    pub cpu_model: bool,
}

/// A selected sensor and its coverage.
pub struct SelectedSensor {
    pub sensor: Box<dyn Sensor>,
    pub coverage: Coverage,
    /// The models it meters on another machine; empty for a sensor of this machine.
    pub models: Vec<Arc<str>>,
}

/// One device, or one kind without a device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub kind: Kind,
    pub device: Arc<str>,
    pub at: String,
    #[serde(rename = "place")]
    pub coverage: Coverage,
    /// Quality label of its figures.
    pub quality: Quality,
    /// Factors from a figure to the ends of its band.
    pub band: Band,
    pub used: bool,
    /// Whether it works for this machine although it cannot be read: its energy is missing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub missing: bool,
    /// Why it is not used, with the remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// A longer remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
}

/// Device name of the CPU model.
pub const CPU_TIME: &str = "cpu-time";

/// Finds the devices of all kinds and selects sensors.
pub fn discover(config: &Config) -> Discovery {
    let candidates = candidates(config);
    let verdicts = selection::select(config.sensors, &candidates);
    let whys: Vec<Option<String>> = candidates
        .iter()
        .zip(verdicts)
        .map(|(one, verdict)| {
            let own = one.sensor.as_ref().err().map(ToString::to_string);
            own.or(verdict.map(|why| why.to_string()))
        })
        .collect();
    let findings = candidates.iter().zip(&whys).map(|(one, why)| finding(one, why.clone()));
    let mut findings: Vec<Finding> = findings.collect();
    let used: Vec<SelectedSensor> = candidates
        .into_iter()
        .zip(&whys)
        .filter(|(_, why)| why.is_none())
        .filter_map(|(one, _)| {
            let models = models_of(config, &one);
            Some(SelectedSensor { sensor: one.sensor.ok()?, coverage: one.coverage, models })
        })
        .collect();
    let covered =
        used.iter().any(|one| matches!(one.coverage, Coverage::Processor | Coverage::Machine));
    let cpu_time = cpu_time(config, covered);
    let cpu_model = cpu_time.used;
    let is_whole = used.iter().any(|one| one.coverage == Coverage::Machine);
    mark_missing(config, &mut findings, is_whole, cpu_model);
    findings.push(cpu_time);
    Discovery { findings, used, cpu_model }
}

/// Leaves a part missing only if nothing that is used contains it: the whole contains all, CPU time
/// stands for processors and memory, and another view or kind of a part that is read is enough.
fn mark_missing(config: &Config, findings: &mut [Finding], is_whole: bool, cpu_model: bool) {
    let used: Vec<(Kind, Coverage, Arc<str>)> = findings
        .iter()
        .filter(|finding| finding.used)
        .map(|finding| (finding.kind, finding.coverage, Arc::clone(&finding.device)))
        .collect();
    for finding in findings.iter_mut().filter(|finding| finding.missing) {
        let is_processor = finding.coverage != Coverage::Accelerator;
        let wanted = config.sensors;
        let asked = wanted == SensorChoice::Auto || wanted.kind() == Some(finding.kind);
        let read_otherwise = used.iter().any(|(kind, coverage, device)| {
            *device == finding.device
                || is_processor && *coverage == Coverage::Processor && *kind != finding.kind
        });
        let contained = is_whole || is_processor && cpu_model || read_otherwise;
        finding.missing = asked && !contained;
    }
}

/// The models named by a Prometheus query; empty for other sensors.
fn models_of(config: &Config, one: &Discovered) -> Vec<Arc<str>> {
    let query = config.prometheus.get(&*one.info.name).filter(|_| one.kind == Kind::Prometheus);
    query.map_or_else(Vec::new, |query| {
        query.models.iter().map(|name| name.as_str().into()).collect()
    })
}

/// All devices in order of preference, with an entry for each kind without a device.
fn candidates(config: &Config) -> Vec<Discovered> {
    let root = &config.sysfs_root;
    let kinds = [
        Kind::Rapl,
        Kind::Hwmon,
        Kind::Ina3221,
        Kind::Apple,
        Kind::Nvml,
        Kind::Prometheus,
        Kind::Battery,
        Kind::Wall,
    ];
    let found = kinds.into_iter().flat_map(|kind| {
        let (enabled, found) = match kind {
            Kind::Rapl => (config.rapl.enabled, rapl::find(root, config.rapl, config.idle_watts)),
            Kind::Hwmon => (config.hwmon.enabled, hwmon::find(root, config.idle_watts)),
            Kind::Ina3221 => (config.ina3221.enabled, ina3221::find(root)),
            // Finding cards would load the library.
            Kind::Nvml if !config.nvml.enabled => (false, Vec::new()),
            Kind::Nvml => (true, nvml::find(&config.nvml)),
            Kind::Apple if !config.apple.enabled => (false, Vec::new()),
            Kind::Apple => (true, apple::find()),
            Kind::Prometheus => {
                let queries = config.prometheus.iter();
                (true, queries.map(|(name, query)| prometheus::candidate(name, query)).collect())
            }
            Kind::Wall => (true, wall::find(&config.wall)),
            _ => (true, battery::find(root)),
        };
        let found = if enabled { found } else { Vec::new() };
        match absent(kind, enabled) {
            Some(why) if found.is_empty() => vec![missing(kind, why)],
            _ => found,
        }
    });
    found.collect()
}

/// The reason to report for a kind without devices.
fn absent(kind: Kind, enabled: bool) -> Option<SkipReason> {
    if !enabled {
        return Some(SkipReason::Absent("is switched off in the config"));
    }
    Some(SkipReason::Absent(match kind {
        Kind::Rapl => {
            "the kernel shows no powercap zones here, as in most virtual machines and containers; \
             on a host of yours, mount its /sys read-only and name it in energy.sysfs_root"
        }
        Kind::Hwmon => "no driver here shows a card's or the machine's energy or power",
        Kind::Ina3221 => "there is no such monitor: this is no Jetson board",
        Kind::Apple => "this is no Mac with a chip of Apple's",
        Kind::Prometheus => "no query is configured in [energy.prometheus.NAME]",
        Kind::Wall => "no meter is configured in [energy.wall]",
        _ => return None,
    }))
}

fn missing(kind: Kind, why: SkipReason) -> Discovered {
    Discovered {
        kind,
        info: info(kind.label(), kind, Quality::Measured, Band::PROCESSOR),
        coverage: Coverage::Machine,
        at: String::new(),
        sensor: Err(why),
    }
}

fn finding(one: &Discovered, why_not: Option<String>) -> Finding {
    Finding {
        kind: one.kind,
        device: Arc::clone(&one.info.name),
        at: one.at.clone(),
        coverage: one.coverage,
        quality: one.info.quality,
        band: one.info.band,
        used: why_not.is_none(),
        missing: one.sensor.as_ref().err().is_some_and(|why| why.is_missing(one.coverage)),
        why_not,
        advice: one.sensor.as_ref().err().and_then(|why| why.advice(one.kind)),
    }
}

fn cpu_time(config: &Config, covered: bool) -> Finding {
    let modelled = matches!(config.sensors, SensorChoice::Auto | SensorChoice::CpuModel);
    let why_not = match stat::is_own(&config.proc_root) {
        _ if covered => {
            Some(SkipReason::Absent("a sensor covers the processor, which is better than a model"))
        }
        _ if !modelled => Some(SkipReason::NotAsked),
        Err(error) => Some(error.into()),
        Ok(false) => Some(SkipReason::Absent(
            "energy.proc_root numbers processes otherwise than this one: leave it at /proc, in a container too",
        )),
        Ok(true) => None,
    };
    let why_not = why_not.map(|why| why.to_string());
    Finding {
        kind: Kind::CpuModel,
        device: CPU_TIME.into(),
        at: config.proc_root.display().to_string(),
        coverage: Coverage::Processor,
        quality: Quality::Estimated,
        band: config.cpu_model().band(),
        used: why_not.is_none(),
        missing: false,
        why_not,
        advice: None,
    }
}

impl Discovery {
    /// Whether a selected sensor meters this machine.
    pub fn meters_here(&self) -> bool {
        self.used.iter().any(|one| one.coverage != Coverage::Elsewhere)
    }

    /// Quality of requests' figures: the worst among the selected sensors, and at best estimated if
    /// a part of the machine is missing. `None` if energy is unknown.
    pub fn quality(&self) -> Option<Quality> {
        let here = |finding: &&Finding| finding.used && finding.coverage != Coverage::Elsewhere;
        let used = self.findings.iter().filter(here).map(|finding| finding.quality).max()?;
        Some(if self.missing().is_empty() { used } else { used.max(Quality::Estimated) })
    }

    /// The devices of this machine that were found and cannot be read.
    pub fn missing(&self) -> Tally {
        let missing = self.findings.iter().filter(|finding| finding.missing);
        Tally::of(missing.map(|finding| finding.coverage))
    }
}

/// One line for the log.
impl fmt::Display for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used: Vec<&str> =
            self.findings.iter().filter(|one| one.used).map(|one| &*one.device).collect();
        let not: Vec<String> = self
            .findings
            .iter()
            .filter_map(|one| Some(format!("{}: {}", one.device, one.why_not.as_ref()?)))
            .collect();
        write!(f, "used [{}], not used [{}]", used.join(", "), not.join("; "))
    }
}

/// Why no sensor of a configured kind can be used.
pub fn refusals(discovery: &Discovery, kind: Kind) -> String {
    let of_kind = discovery.findings.iter().filter(|one| one.kind == kind);
    let whys: Vec<String> = of_kind
        .filter_map(|one| {
            Some(format!("{} {}: {}", one.at, one.device, one.why_not.as_ref()?).trim().to_owned())
        })
        .collect();
    whys.join("; ")
}
