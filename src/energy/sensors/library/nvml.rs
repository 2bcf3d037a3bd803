//! Sensor of NVIDIA cards through the driver's library (NVML), loaded at run time if present.
//!
//! The energy counter (Volta and later) counts millijoules since the driver was loaded: a decrease
//! is a reload. Without a counter, the card's power, a mean over up to a second, is integrated.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use serde::Deserialize;

use crate::energy::figure::Quality;
use crate::energy::sensors::counter::{Counter, Overflow};
use crate::energy::sensors::coverage::Coverage;
use crate::energy::sensors::discovered::{Discovered, Kind, SkipReason, info, with_idle};
use crate::energy::sensors::gauge::{LONGEST_GAP, PowerGauge};
use crate::energy::sensors::sensor::{Band, DeviceInfo, Sample, Sensor, SensorError};
use crate::units::{MonotonicNs, Watts};

/// `[energy.nvml]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether `auto` looks for it. Default true.
    pub enabled: bool,
    /// Name or path of the library. Default `libnvidia-ml.so.1`.
    pub library: PathBuf,
    /// Idle power of one card in watts, 0 to 10000. Default unset: learned.
    pub idle_watts: Option<Watts>,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true, library: "libnvidia-ml.so.1".into(), idle_watts: None }
    }
}

/// Finds cards. Loading the library takes about 10 ms where a driver is installed.
pub fn find(config: &Config) -> Vec<Discovered> {
    let nvml = match load(&config.library) {
        Ok(nvml) => Arc::new(nvml),
        Err(why) => return vec![not_usable("nvml", &config.library, why)],
    };
    match nvml.device_count() {
        Ok(0) => vec![not_usable("nvml", &config.library, "the driver lists no card".to_owned())],
        Ok(count) => (0..count).map(|index| card(&nvml, index, config.idle_watts)).collect(),
        Err(error) => vec![not_usable("nvml", &config.library, driver_error(&error))],
    }
}

fn load(library: &Path) -> Result<Nvml, String> {
    Nvml::builder().lib_path(OsStr::new(library)).init().map_err(|error| match error {
        NvmlError::LibloadingError(_) => format!(
            "{} cannot be loaded: no NVIDIA driver is installed, or the container has no access to it (start it with `docker run --gpus all`)",
            library.display()
        ),
        error => driver_error(&error),
    })
}

fn driver_error(error: &NvmlError) -> String {
    format!("NVIDIA driver error: {error}")
}

fn not_usable(name: &str, library: &Path, why: String) -> Discovered {
    Discovered {
        kind: Kind::Nvml,
        info: info(name, Kind::Nvml, Quality::Measured, Band::CARD),
        coverage: Coverage::Accelerator,
        at: library.display().to_string(),
        sensor: Err(SkipReason::NoDriver(why)),
    }
}

fn card(nvml: &Arc<Nvml>, index: u32, idle: Option<Watts>) -> Discovered {
    let name = format!("nvidia-{index}");
    let counts = nvml.device_by_index(index).and_then(|device| device.total_energy_consumption());
    let (quality, band) = match counts {
        Ok(_) => (Quality::Measured, Band::CARD),
        Err(_) => (Quality::Estimated, Band::SAMPLED),
    };
    let info = with_idle(info(name, Kind::Nvml, quality, band), idle);
    let model = nvml.device_by_index(index).and_then(|device| device.name());
    let at =
        model.map_or_else(|_| format!("card {index}"), |model| format!("card {index}, {model}"));
    let sensor = open(nvml, index, info.clone());
    Discovered { kind: Kind::Nvml, info, coverage: Coverage::Accelerator, at, sensor }
}

fn open(nvml: &Arc<Nvml>, index: u32, info: DeviceInfo) -> Result<Box<dyn Sensor>, SkipReason> {
    let refused = |error: NvmlError| SkipReason::Driver(driver_error(&error));
    let device = nvml.device_by_index(index).map_err(refused)?;
    if device.mig_mode().is_ok_and(|mode| mode.current != 0) {
        return Err(SkipReason::Mig);
    }
    let (now, name) = (MonotonicNs::now(), Arc::clone(&info.name));
    let rated = highest_limit(&device);
    let reading = if let Ok(raw) = counter_microjoules(&device) {
        Reading::Counter(Counter::starting_at(raw, now, name, Overflow::Never).rated(rated))
    } else {
        let mut gauge = PowerGauge::new(name, rated, LONGEST_GAP);
        gauge.add(microwatts(&device).map_err(refused)?, now)?;
        Reading::Power(gauge)
    };
    Ok(Box::new(NvmlSensor { info, nvml: Arc::clone(nvml), index, reading }))
}

/// The energy counter in microjoules, read in millijoules.
fn counter_microjoules(device: &Device<'_>) -> Result<u64, NvmlError> {
    Ok(device.total_energy_consumption()?.saturating_mul(1000))
}

/// The power in microwatts, read in milliwatts.
fn microwatts(device: &Device<'_>) -> Result<u64, NvmlError> {
    Ok(u64::from(device.power_usage()?) * 1000)
}

/// The highest power limit that the card can be set to, in microwatts.
fn highest_limit(device: &Device<'_>) -> Option<u64> {
    let constraints = device.power_management_limit_constraints().ok()?;
    Some(u64::from(constraints.max_limit) * 1000)
}

/// One card. Device handles borrow the library, so each read looks the card up by its index, which
/// is cheap.
struct NvmlSensor {
    info: DeviceInfo,
    nvml: Arc<Nvml>,
    index: u32,
    reading: Reading,
}

enum Reading {
    Counter(Counter),
    Power(PowerGauge),
}

impl NvmlSensor {
    fn sample(&mut self) -> Result<Result<Sample, SensorError>, NvmlError> {
        let device = self.nvml.device_by_index(self.index)?;
        Ok(match &mut self.reading {
            Reading::Counter(counter) => {
                let raw = counter_microjoules(&device)?;
                counter.advance(raw, MonotonicNs::now())
            }
            Reading::Power(gauge) => gauge.add(microwatts(&device)?, MonotonicNs::now()),
        })
    }
}

impl Sensor for NvmlSensor {
    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    fn read(&mut self) -> Result<Sample, SensorError> {
        let device = Arc::clone(&self.info.name);
        self.sample()
            .unwrap_or_else(|error| Err(SensorError::Refused { device, why: driver_error(&error) }))
    }

    fn resets(&self) -> u64 {
        match &self.reading {
            Reading::Counter(counter) => counter.resets(),
            Reading::Power(_) => 0,
        }
    }

    fn glitches(&self) -> u64 {
        match &self.reading {
            Reading::Counter(counter) => counter.glitches(),
            Reading::Power(_) => 0,
        }
    }

    fn holders(&self) -> Option<Vec<u32>> {
        let device = self.nvml.device_by_index(self.index).ok()?;
        let processes = device.running_compute_processes().ok()?;
        Some(processes.into_iter().map(|process| process.pid).collect())
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
