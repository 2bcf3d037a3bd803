//! INA3221 power monitors of NVIDIA Jetson boards: rails with volts and amperes, or milliwatts on
//! older kernels.
//!
//! A board with an input rail (`VDD_IN`) is counted by that rail; without one, its rails add up.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{file, hwmon};
use crate::energy::sensors::coverage::Coverage;
use crate::energy::sensors::discovered::{Discovered, Kind, SkipReason, info};
use crate::energy::sensors::gauge::{LONGEST_GAP, PowerGauge};
use crate::energy::sensors::sensor::{DeviceInfo, Sample, Sensor, SensorError};
use crate::units::MonotonicNs;

/// Input rails, which carry all power of the board.
const INPUTS: [&str; 3] = ["VDD_IN", "POM_5V_IN", "VIN"];
/// Rails fed from another monitored rail: the memory of AGX Orin, from `VIN_SYS_5V0`.
const FED_BY_OTHERS: [&str; 1] = ["VDDQ_VDD2_1V8AO"];

/// Finds rails of both drivers under `sysfs_root`.
pub fn find(sysfs_root: &Path) -> Vec<Discovered> {
    let drivers = sysfs_root.join("bus/i2c/drivers");
    let mut rails = Vec::new();
    for (_, chip) in file::entries(&drivers.join("ina3221")) {
        for (_, device) in file::entries(&chip.join("hwmon")) {
            rails.extend((1..=3).filter_map(|n| Rail::volts_and_amperes(&device, n)));
        }
    }
    for (_, chip) in file::entries(&drivers.join("ina3221x")) {
        let devices = file::entries(&chip).into_iter();
        for (_, device) in devices.filter(|(name, _)| name.starts_with("iio:device")) {
            rails.extend((0..=2).filter_map(|n| Rail::milliwatts(&device, n)));
        }
    }
    let mut found: Vec<Discovered> = rails.into_iter().map(Rail::candidate).collect();
    let is_input = |rail: &&Discovered| rail.coverage == Coverage::Machine && rail.sensor.is_ok();
    let input = found.iter().find(is_input).map(|rail| Arc::clone(&rail.info.name));
    // The other rails of such a board are incomplete: they lack its memory.
    if let Some(input) = input {
        for rail in found.iter_mut().filter(|rail| rail.coverage == Coverage::Processor) {
            rail.sensor = Err(SkipReason::Within(Arc::clone(&input)));
        }
    }
    found
}

struct Rail {
    name: String,
    off: bool,
    meter: Meter,
}

/// Files from which a rail's power is computed.
enum Meter {
    VoltsAndAmperes { millivolts: PathBuf, milliamperes: PathBuf },
    Milliwatts(PathBuf),
}

impl Rail {
    /// Channels 1 to 3. Channel 7 of the driver is the sum of the shunts, which would count the
    /// others twice.
    fn volts_and_amperes(device: &Path, n: u8) -> Option<Self> {
        let name = file::word(&device.join(format!("in{n}_label")))?;
        let off = file::word(&device.join(format!("in{n}_enable"))).is_some_and(|word| word == "0");
        let millivolts = device.join(format!("in{n}_input"));
        let milliamperes = device.join(format!("curr{n}_input"));
        Some(Self { name, off, meter: Meter::VoltsAndAmperes { millivolts, milliamperes } })
    }

    fn milliwatts(device: &Path, n: u8) -> Option<Self> {
        let name = file::word(&device.join(format!("rail_name_{n}")))?;
        let meter = Meter::Milliwatts(device.join(format!("in_power{n}_input")));
        Some(Self { name, off: false, meter })
    }

    fn candidate(self) -> Discovered {
        let (quality, band) = hwmon::SAMPLED;
        let info = info(self.name.as_str(), Kind::Ina3221, quality, band);
        let coverage = if INPUTS.contains(&self.name.as_str()) {
            Coverage::Machine
        } else {
            Coverage::Processor
        };
        let at = self.meter.path().display().to_string();
        let sensor = if self.off || self.name == "NC" {
            Err(SkipReason::SwitchedOff)
        } else if FED_BY_OTHERS.contains(&self.name.as_str()) {
            Err(SkipReason::Within("VIN_SYS_5V0".into()))
        } else {
            self.meter.open(info.clone(), coverage == Coverage::Machine)
        };
        Discovered { kind: Kind::Ina3221, info, coverage, at, sensor }
    }
}

impl Meter {
    fn path(&self) -> &Path {
        match self {
            Self::VoltsAndAmperes { millivolts: path, .. } | Self::Milliwatts(path) => path,
        }
    }

    fn microwatts(&self) -> Result<u64, SensorError> {
        match self {
            Self::VoltsAndAmperes { millivolts, milliamperes } => {
                Ok(file::count(millivolts)?.saturating_mul(file::count(milliamperes)?))
            }
            Self::Milliwatts(path) => Ok(file::count(path)?.saturating_mul(1000)),
        }
    }

    /// `whole`: the rail carries all power of the board, so that 0 W is an error; an unused part
    /// may draw 0 W.
    fn open(self, info: DeviceInfo, whole: bool) -> Result<Box<dyn Sensor>, SkipReason> {
        let gauge = PowerGauge::new(Arc::clone(&info.name), None, LONGEST_GAP);
        let gauge = if whole { gauge } else { gauge.that_may_be_off() };
        let mut sensor = RailSensor { info, meter: self, gauge };
        sensor.read()?;
        Ok(Box::new(sensor))
    }
}

struct RailSensor {
    info: DeviceInfo,
    meter: Meter,
    gauge: PowerGauge,
}

impl Sensor for RailSensor {
    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    fn read(&mut self) -> Result<Sample, SensorError> {
        self.gauge.add(self.meter.microwatts()?, MonotonicNs::now())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn millivolts_times_milliamperes_are_microwatts() {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3");
        fs::create_dir_all(&device).unwrap();
        for (name, text) in [
            ("in1_label", "VDD_IN"),
            ("in1_input", "5000"),
            ("curr1_input", "1600"),
            ("in2_label", "VDD_SOC"),
            ("in2_input", "5000"),
            ("curr2_input", "100"),
            ("in3_label", "NC"),
            ("in3_enable", "0"),
            ("in7_label", "sum of shunt voltages"),
            ("in7_input", "9"),
        ] {
            fs::write(device.join(name), text).unwrap();
        }
        let found = find(root.path());
        let places: Vec<(&str, Coverage, bool)> =
            found.iter().map(|c| (&*c.info.name, c.coverage, c.sensor.is_ok())).collect();
        assert_eq!(
            places,
            [
                ("VDD_IN", Coverage::Machine, true),
                ("VDD_SOC", Coverage::Processor, false),
                ("NC", Coverage::Processor, false),
            ]
        );
        assert!(matches!(&found[1].sensor, Err(SkipReason::Within(_))));
        let Rail { meter, .. } = Rail::volts_and_amperes(&device, 1).unwrap();
        assert_eq!(meter.microwatts().unwrap(), 8_000_000);
    }
}
