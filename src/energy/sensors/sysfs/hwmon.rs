//! Energy and power channels under `/sys/class/hwmon`: AMD and Intel cards, ACPI power meters,
//! NVIDIA Grace.
//!
//! Units are the kernel's: microjoules and microwatts. A channel whose `_enable` is 0 is skipped.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::counter_file::CounterFile;
use super::file;
use crate::energy::figure::Quality;
use crate::energy::sensors::counter::{Counter, Overflow};
use crate::energy::sensors::discovered::{Coverage, Discovered, Kind, SkipReason, info};
use crate::energy::sensors::gauge::{LONGEST_GAP, running};
use crate::energy::sensors::power_integral::PowerIntegral;
use crate::energy::sensors::sensor::{Band, DeviceInfo, Sample, Sensor, SensorError};
use crate::units::MonotonicNs;

/// Quality and band of a power reading that the driver averages over its interval.
const AVERAGED: (Quality, Band) = (Quality::Measured, Band { low: 0.95, high: 1.05 });
/// Quality and band of an instantaneous power reading: power between two readings is not seen.
pub const SAMPLED: (Quality, Band) = (Quality::Estimated, Band { low: 0.85, high: 1.15 });

/// Finds the devices of known drivers under `sysfs_root`.
pub fn find(sysfs_root: &Path) -> Vec<Discovered> {
    let devices = file::entries(&sysfs_root.join("class/hwmon"));
    devices
        .into_iter()
        .flat_map(|(id, path)| match file::word(&path.join("name")).as_deref() {
            Some("amdgpu") => amdgpu(&id, &path),
            Some("i915" | "xe") => intel(&id, &path),
            Some("power_meter") => power_meter(&id, &path),
            Some("amd_energy") => amd_energy(&path),
            _ => Vec::new(),
        })
        .collect()
}

/// An AMD card, or the GPU of an APU, whose figure is that of the whole package.
fn amdgpu(id: &str, path: &Path) -> Vec<Discovered> {
    // `average` is the driver's mean; newer chips and APUs expose only the instantaneous power.
    let channels = [("power1_average", AVERAGED), ("power1_input", SAMPLED)];
    let exists = |name: &str| path.join(name).exists();
    let Some((channel, trust)) = channels.into_iter().find(|(name, _)| exists(name)) else {
        return Vec::new();
    };
    // Only a discrete card has a fan, a junction sensor or memory controller statistics.
    let signs = ["fan1_input", "pwm1", "temp2_input", "device/mem_busy_percent"];
    let discrete = signs.into_iter().any(exists);
    let (name, coverage) = if discrete {
        (
            format!("amdgpu-{}", pci_address(path).unwrap_or_else(|| id.to_owned())),
            Coverage::Accelerator,
        )
    } else {
        ("amd-apu".to_owned(), Coverage::Processor)
    };
    let mut candidate = power(name, coverage, &path.join(channel), trust);
    if discrete && file::count(&path.join(channel)).is_ok_and(|microwatts| microwatts == 0) {
        candidate.sensor = Err(SkipReason::SecondDie);
    }
    vec![candidate]
}

/// An Intel card: `i915` exposes `energy1_input`, `xe` one channel for the card and one for its
/// package. The devices `i915_gt0` and following are parts of the card and have other names.
fn intel(id: &str, path: &Path) -> Vec<Discovered> {
    let channels: Vec<(PathBuf, Option<String>)> = (1..=2)
        .map(|n| {
            let label = file::word(&path.join(format!("energy{n}_label")));
            (path.join(format!("energy{n}_input")), label)
        })
        .filter(|(channel, _)| channel.exists())
        .collect();
    let card = channels.iter().find(|(_, label)| label.as_deref() == Some("card"));
    let Some((channel, _)) = card.or(channels.first()) else { return Vec::new() };
    let name = format!("intel-gpu-{}", pci_address(path).unwrap_or_else(|| id.to_owned()));
    vec![energy(name, Coverage::Accelerator, channel)]
}

/// ACPI power meters: of the whole machine or, on NVIDIA Grace, of each part, named by its OEM
/// string.
fn power_meter(id: &str, path: &Path) -> Vec<Discovered> {
    let oem = file::word(&path.join("power1_oem_info")).unwrap_or_default();
    let socket = oem.rsplit(' ').next().unwrap_or_default();
    let (name, coverage, part) = match oem.as_str() {
        name if name.starts_with("Module Power Socket") => {
            (format!("grace-module-{socket}"), Coverage::Machine, false)
        }
        name if name.starts_with("Grace Power Socket") => {
            (format!("grace-{socket}"), Coverage::Processor, false)
        }
        name if name.starts_with("CPU Power Socket") => {
            (format!("grace-cpu-{socket}"), Coverage::Processor, true)
        }
        name if name.starts_with("SysIO Power Socket") => {
            (format!("grace-sysio-{socket}"), Coverage::Processor, true)
        }
        _ => (format!("acpi-{id}"), Coverage::Machine, false),
    };
    let mut candidate = power(name, coverage, &path.join("power1_average"), AVERAGED);
    if part {
        candidate.sensor = Err(SkipReason::PartOfPackage);
    }
    vec![candidate]
}

/// Counters of AMD packages on kernels with the `amd_energy` driver: `Esocket0` and following;
/// those of cores are parts.
fn amd_energy(path: &Path) -> Vec<Discovered> {
    let sockets = (1..=1024).map_while(|n| {
        let label = file::word(&path.join(format!("energy{n}_label")))?;
        Some((label, path.join(format!("energy{n}_input"))))
    });
    sockets
        .filter_map(|(label, channel)| {
            let socket = label.strip_prefix("Esocket")?;
            Some(energy(format!("package-{socket}"), Coverage::Processor, &channel))
        })
        .collect()
}

/// The PCI address, such as `0000:03:00.0`, from the link to the device; `None` without a link.
fn pci_address(path: &Path) -> Option<String> {
    let device = path.join("device").canonicalize().ok()?;
    let name = device.file_name()?.to_string_lossy().into_owned();
    name.contains(':').then_some(name)
}

fn is_off(channel: &Path) -> bool {
    let name = channel.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let base = name.split('_').next().unwrap_or_default();
    file::word(&channel.with_file_name(format!("{base}_enable"))).is_some_and(|word| word == "0")
}

fn energy(name: String, coverage: Coverage, channel: &Path) -> Discovered {
    let info = info(name, Kind::Hwmon, Quality::Measured, Band::EXACT);
    let at = channel.display().to_string();
    let sensor = open_energy(info.clone(), channel);
    Discovered { kind: Kind::Hwmon, info, coverage, at, sensor }
}

fn open_energy(info: DeviceInfo, channel: &Path) -> Result<Box<dyn Sensor>, SkipReason> {
    if is_off(channel) {
        return Err(SkipReason::SwitchedOff);
    }
    let raw = file::count(channel)?;
    let name = Arc::clone(&info.name);
    // The kernel widens the register to 64 bits.
    let counter = Counter::starting_at(raw, MonotonicNs::now(), name, Overflow::Never);
    Ok(Box::new(CounterFile { info, path: channel.to_owned(), counter }))
}

fn power(name: String, coverage: Coverage, channel: &Path, trust: (Quality, Band)) -> Discovered {
    let info = info(name, Kind::Hwmon, trust.0, trust.1);
    let at = channel.display().to_string();
    let sensor = open_power(info.clone(), channel);
    Discovered { kind: Kind::Hwmon, info, coverage, at, sensor }
}

fn open_power(info: DeviceInfo, channel: &Path) -> Result<Box<dyn Sensor>, SkipReason> {
    if is_off(channel) {
        return Err(SkipReason::SwitchedOff);
    }
    let microwatts = running(file::count(channel)?, &info.name)?;
    let integral = PowerIntegral::starting_at(microwatts, MonotonicNs::now(), LONGEST_GAP);
    Ok(Box::new(PowerChannel { info, path: channel.to_owned(), integral }))
}

/// A `powerN_average` or `powerN_input`.
struct PowerChannel {
    info: DeviceInfo,
    path: PathBuf,
    integral: PowerIntegral,
}

impl Sensor for PowerChannel {
    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    fn read(&mut self) -> Result<Sample, SensorError> {
        let microwatts = running(file::count(&self.path)?, &self.info.name)?;
        Ok(self.integral.add(microwatts, MonotonicNs::now()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn device(root: &Path, files: &[(&str, &str)]) -> PathBuf {
        let path = root.join("class/hwmon/hwmon0");
        for (name, text) in files {
            let file = path.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        path
    }

    fn only(root: &Path) -> Discovered {
        let mut found = find(root);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    #[test]
    fn a_card_counts_itself_and_an_apu_its_package() {
        let (card, apu) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = [("name", "amdgpu\n"), ("power1_average", "30000000\n"), ("fan1_input", "900")];
        device(card.path(), &files);
        device(apu.path(), &[("name", "amdgpu\n"), ("power1_input", "9000000\n")]);
        let (card, apu) = (only(card.path()), only(apu.path()));
        assert_eq!((card.coverage, card.info.quality), (Coverage::Accelerator, Quality::Measured));
        assert_eq!((apu.coverage, apu.info.quality), (Coverage::Processor, Quality::Estimated));
        assert!(card.sensor.is_ok() && apu.sensor.is_ok());
    }

    /// Others metered the second die as 0 W.
    #[test]
    fn the_second_die_of_a_card_is_skipped_and_not_read_as_0_w() {
        let root = tempfile::tempdir().unwrap();
        let files = [("name", "amdgpu\n"), ("power1_average", "0\n"), ("temp2_input", "30000")];
        device(root.path(), &files);
        assert!(matches!(only(root.path()).sensor.err(), Some(SkipReason::SecondDie)));
    }

    #[test]
    fn a_channel_that_is_switched_off_is_skipped() {
        let root = tempfile::tempdir().unwrap();
        let files = [("name", "power_meter\n"), ("power1_average", "5"), ("power1_enable", "0\n")];
        device(root.path(), &files);
        assert!(matches!(only(root.path()).sensor.err(), Some(SkipReason::SwitchedOff)));
    }

    #[test]
    fn power_becomes_energy_and_garbage_an_error() {
        let root = tempfile::tempdir().unwrap();
        let path =
            device(root.path(), &[("name", "power_meter\n"), ("power1_average", "90000000\n")]);
        let mut sensor = only(root.path()).sensor.unwrap();
        let start = MonotonicNs::now();
        let sample = loop {
            let sample = sensor.read().unwrap();
            if sample.at - start > 20_000_000 {
                break sample;
            }
        };
        let joules = sample.total.joules().0 / ((sample.at - start) as f64 / 1e9);
        assert!((85.0..120.0).contains(&joules), "{joules} W");
        fs::write(path.join("power1_average"), "99000000000").unwrap();
        assert_eq!(sensor.read().unwrap_err().label(), "refused");
        fs::write(path.join("power1_average"), "-1").unwrap();
        assert_eq!(sensor.read().unwrap_err().label(), "malformed");
    }

    /// Others went on with 0 W.
    #[test]
    fn a_gauge_that_falls_to_zero_is_an_error_and_its_time_unknown() {
        let root = tempfile::tempdir().unwrap();
        let path =
            device(root.path(), &[("name", "power_meter\n"), ("power1_average", "90000000\n")]);
        let mut sensor = only(root.path()).sensor.unwrap();
        fs::write(path.join("power1_average"), "0\n").unwrap();
        let error = sensor.read().unwrap_err();
        assert!(error.to_string().contains("0 W"), "{error}");
        assert!(matches!(
            only(root.path()).sensor.err(),
            Some(SkipReason::Unreadable(SensorError::NoPower { .. }))
        ));
    }

    #[test]
    fn an_intel_cards_own_counter_comes_before_its_packages() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("name", "xe\n"),
            ("energy1_label", "card\n"),
            ("energy1_input", "100\n"),
            ("energy2_label", "pkg\n"),
            ("energy2_input", "70\n"),
        ];
        let path = device(root.path(), &files);
        let mut sensor = only(root.path()).sensor.unwrap();
        fs::write(path.join("energy1_input"), "150\n").unwrap();
        assert_eq!(sensor.read().unwrap().total.0, 50);
    }
}
