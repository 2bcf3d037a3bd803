//! RAPL counters of CPU packages and their memory, read from the kernel's powercap tree.
//!
//! `psys` contains the packages, `core` and `uncore` are parts of one, and `intel-rapl-mmio`
//! exposes the same package through another register. AMD's packages are in the same tree. The
//! kernel's perf events expose these counters too, but need a capability and support no further
//! machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::counter_file::CounterFile;
use super::file;
use crate::energy::figure::Quality;
use crate::energy::sensors::counter::{Counter, Overflow};
use crate::energy::sensors::coverage::Coverage;
use crate::energy::sensors::discovered::{Discovered, Kind, SkipReason, info, with_idle};
use crate::energy::sensors::sensor::{Band, DeviceInfo, Sensor, SensorError};
use crate::units::{Microjoules, MonotonicNs, Watts};

/// `[energy.rapl]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether `auto` looks for it. Default true.
    pub enabled: bool,
    /// Whether memory is counted in addition to the packages, where the machine supports it.
    /// Default true.
    pub dram: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true, dram: true }
    }
}

/// Finds RAPL zones under `sysfs_root` (`/sys` on a live system). `idle` is the configured idle
/// power of one package.
pub fn find(sysfs_root: &Path, config: Config, idle: Option<Watts>) -> Vec<Discovered> {
    let zones = zones(&sysfs_root.join("class/powercap"));
    zones.into_iter().map(|zone| zone.candidate(config, idle)).collect()
}

struct Zone {
    path: PathBuf,
    /// The directory's name, `intel-rapl:0:1`: its position in the tree.
    id: String,
    name: Result<String, SensorError>,
    /// The name of the zone it is part of.
    parent: Option<String>,
}

impl Zone {
    fn at(id: String, path: PathBuf) -> Self {
        let file = path.join("name");
        let name = std::fs::read_to_string(&file)
            .map(|text| text.trim().to_owned())
            .map_err(|error| SensorError::from_io(&file, error));
        Self { path, id, name, parent: None }
    }

    /// `package-0`, `dram-0`, `psys`: equal for two views of one zone, by which `selection` detects
    /// duplicates. Zones are numbered in the order of their discovery: the number of a package is
    /// in its name.
    fn device_name(&self) -> String {
        let number = self.id.split(':').nth(1).unwrap_or_default();
        let parent = self.parent.as_deref().and_then(|name| name.strip_prefix("package-"));
        let package = parent.unwrap_or(number);
        match &self.name {
            Ok(name) if self.id.split(':').count() > 2 => format!("{name}-{package}"),
            Ok(name) => name.clone(),
            Err(_) => self.id.clone(),
        }
    }

    fn candidate(self, config: Config, idle: Option<Watts>) -> Discovered {
        let (coverage, obstacle) = match &self.name {
            Err(_) => (Coverage::Processor, None),
            Ok(name) => match name.as_str() {
                "psys" => (Coverage::Machine, None),
                "dram" => (Coverage::Memory, (!config.dram).then_some(SkipReason::NotAsked)),
                "core" | "uncore" => (Coverage::Processor, Some(SkipReason::PartOfPackage)),
                name if name.starts_with("package-") => (Coverage::Processor, None),
                _ => (Coverage::Processor, Some(SkipReason::UnknownZone)),
            },
        };
        let band = if coverage == Coverage::Memory { Band::MEMORY } else { Band::PROCESSOR };
        let device = info(self.device_name(), Kind::Rapl, Quality::Measured, band);
        // The configured idle power is that of a package, not of its memory.
        let device = with_idle(device, idle.filter(|_| coverage != Coverage::Memory));
        let at = self.path.display().to_string();
        let sensor = match obstacle {
            Some(why) => Err(why),
            None => self.open(device.clone()),
        };
        Discovered { kind: Kind::Rapl, info: device, coverage, at, sensor }
    }

    fn open(self, info: DeviceInfo) -> Result<Box<dyn Sensor>, SkipReason> {
        self.name?;
        let path = self.path.join("energy_uj");
        let range = file::count(&self.path.join("max_energy_range_uj"))?;
        let raw = file::count(&path)?;
        if raw == 0 {
            return Err(SkipReason::NeverCounted);
        }
        let overflow = Overflow::WrapsAt(Microjoules(range));
        let name = Arc::clone(&info.name);
        let counter = Counter::starting_at(raw, MonotonicNs::now(), name, overflow)
            .rated(highest_limit(&self.path));
        Ok(Box::new(CounterFile { info, path, counter }))
    }
}

/// The highest power limit that a zone states, in microwatts: its constraints are the long-term,
/// short-term and peak limits, each with the highest value it may be set to.
fn highest_limit(zone: &Path) -> Option<u64> {
    let limits = (0..4).flat_map(|n| {
        ["power_limit_uw", "max_power_uw"].map(|name| zone.join(format!("constraint_{n}_{name}")))
    });
    limits.filter_map(|file| file::count(&file).ok()).max()
}

/// All zones below `base`, the register interface before its memory-mapped duplicate.
///
/// The kernel lists all zones flat; some containers mount only a control type's directory, where
/// they are nested.
fn zones(base: &Path) -> Vec<Zone> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut directories = vec![(base.to_owned(), 0)];
    while let Some((directory, depth)) = directories.pop() {
        for (id, path) in file::entries(&directory) {
            if !id.starts_with("intel-rapl") || found.contains_key(&id) {
                continue;
            }
            // Control type, package, part: the tree has three levels, and links must not lead in
            // circles.
            if depth < 2 {
                directories.push((path.clone(), depth + 1));
            }
            if id.contains(':') {
                found.insert(id, path);
            }
        }
    }
    let mut zones: Vec<Zone> = found.into_iter().map(|(id, path)| Zone::at(id, path)).collect();
    let names: BTreeMap<String, String> = zones
        .iter()
        .filter_map(|zone| Some((zone.id.clone(), zone.name.as_ref().ok()?.clone())))
        .collect();
    for zone in &mut zones {
        let parent = zone.id.rsplit_once(':').and_then(|(parent, _)| names.get(parent));
        zone.parent = parent.cloned();
    }
    zones.sort_by_key(|zone| zone.id.starts_with("intel-rapl-mmio"));
    zones
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn find_in(root: &Path) -> Vec<Discovered> {
        find(root, Config::default(), Some(Watts(12.0)))
    }

    fn write_zone(directory: &Path, name: &str, energy_uj: &str) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join("name"), format!("{name}\n")).unwrap();
        fs::write(directory.join("energy_uj"), format!("{energy_uj}\n")).unwrap();
        fs::write(directory.join("max_energy_range_uj"), "262143328850\n").unwrap();
    }

    #[test]
    fn zones_say_what_they_cover_and_idle_power_is_a_packages() {
        let tree = tempfile::tempdir().unwrap();
        let zone = |id: &str| tree.path().join("class/powercap").join(id);
        for (id, name) in [
            ("intel-rapl:0", "package-0"),
            ("intel-rapl:0:0", "core"),
            ("intel-rapl:0:1", "dram"),
            ("intel-rapl:1", "psys"),
            ("intel-rapl-mmio:0", "package-0"),
            ("intel-rapl:2", "odd"),
        ] {
            write_zone(&zone(id), name, "5");
        }
        write_zone(&zone("intel-rapl:3"), "package-3", "0");
        let found: Vec<(String, Coverage, Option<Watts>, Option<String>)> = find_in(tree.path())
            .into_iter()
            .map(|c| {
                let why = c.sensor.err().map(|why| why.to_string());
                (c.info.name.to_string(), c.coverage, c.info.idle, why)
            })
            .collect();
        let idle = Some(Watts(12.0));
        let row = |name: &str, coverage, idle, why: Option<SkipReason>| {
            (name.to_owned(), coverage, idle, why.map(|why| why.to_string()))
        };
        assert_eq!(
            found,
            [
                row("package-0", Coverage::Processor, idle, None),
                row("core-0", Coverage::Processor, idle, Some(SkipReason::PartOfPackage)),
                row("dram-0", Coverage::Memory, None, None),
                row("psys", Coverage::Machine, idle, None),
                row("odd", Coverage::Processor, idle, Some(SkipReason::UnknownZone)),
                row("package-3", Coverage::Processor, idle, Some(SkipReason::NeverCounted)),
                row("package-0", Coverage::Processor, idle, None),
            ]
        );
    }

    #[test]
    fn reads_follow_the_file_over_a_wrap_and_an_error() {
        let tree = tempfile::tempdir().unwrap();
        let zone = tree.path().join("class/powercap/intel-rapl:0");
        write_zone(&zone, "package-0", "262143000000");
        let mut sensor = find_in(tree.path()).remove(0).sensor.unwrap();
        let energy = zone.join("energy_uj");
        assert_eq!(sensor.read().unwrap().total, Microjoules(0));
        fs::remove_file(&energy).unwrap();
        assert_eq!(sensor.read().unwrap_err().label(), "gone");
        for garbage in ["", "-5\n", "18446744073709551616\n", "\u{0}\n", "1.5\n", &"9".repeat(40)] {
            fs::write(&energy, garbage).unwrap();
            assert_eq!(sensor.read().unwrap_err().label(), "malformed", "{garbage:?}");
        }
        fs::write(&energy, "262143000700\n").unwrap();
        assert_eq!(sensor.read().unwrap().total, Microjoules(700), "no wrap after an error");
        fs::write(&energy, "150\n").unwrap();
        assert_eq!(sensor.read().unwrap().total, Microjoules(700 + 328_850 - 700 + 150));
    }

    /// Root reads files of mode 000, so the thread gives up the capabilities that let it.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_for_root_only_is_denied_with_advice() {
        use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
        use std::os::unix::fs::PermissionsExt;

        let tree = tempfile::tempdir().unwrap();
        let zone = tree.path().join("class/powercap/intel-rapl:0");
        write_zone(&zone, "package-0", "1");
        fs::set_permissions(zone.join("energy_uj"), fs::Permissions::from_mode(0o000)).unwrap();
        let root = tree.path().to_owned();
        let why = std::thread::spawn(move || {
            let mut held = capabilities(None).unwrap();
            held.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
            set_capabilities(None, held).unwrap();
            find_in(&root).remove(0).sensor.err().unwrap()
        })
        .join()
        .unwrap();
        assert!(matches!(why, SkipReason::Unreadable(SensorError::Denied { .. })), "{why}");
        assert!(why.to_string().contains("chmod a+r"), "{why}");
    }
}
