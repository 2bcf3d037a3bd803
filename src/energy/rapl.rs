//! RAPL counters of the CPU packages and their memory, read from the kernel's powercap tree.
//!
//! Chooses a set of domains in which no energy is counted twice: `psys` contains the packages, `core` and `uncore`
//! are parts of one, and `intel-rapl-mmio` shows the same package through another register.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::figure::{Quality, Source};
use super::sensor::{Band, Counter, DeviceInfo, Overflow, Sensor, SensorError};
use crate::units::{Microjoules, MonotonicNs, Watts};

/// One powercap zone that counts.
#[derive(Debug)]
pub struct RaplSensor {
    info: DeviceInfo,
    path: PathBuf,
    counter: Counter,
    last_read: MonotonicNs,
}

impl Sensor for RaplSensor {
    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    fn read(&mut self) -> Result<Microjoules, SensorError> {
        let raw = read_count(&self.path)?;
        let now = MonotonicNs::now();
        let total = self.counter.advance(raw, now - self.last_read);
        self.last_read = now;
        Ok(total)
    }

    fn resets(&self) -> u64 {
        self.counter.resets()
    }
}

/// What the powercap tree holds: the sensors in use, and why the other zones are not.
#[derive(Debug, Default)]
pub struct Discovery {
    pub used: Vec<RaplSensor>,
    pub rejected: Vec<Rejected>,
}

/// One line for a log or a person.
impl fmt::Display for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used: Vec<&str> = self.used.iter().map(|sensor| &*sensor.info.name).collect();
        let rejected: Vec<String> = self
            .rejected
            .iter()
            .map(|zone| format!("{} {}: {}", zone.path.display(), zone.name, zone.why))
            .collect();
        write!(f, "used [{}], not used [{}]", used.join(", "), rejected.join("; "))
    }
}

/// A zone (or the whole tree) that is not read.
#[derive(Debug)]
pub struct Rejected {
    pub path: PathBuf,
    /// The zone's own name, such as `psys`; empty where it could not be read.
    pub name: String,
    pub why: Why,
}

/// Why a zone is not read.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    #[error("contains the packages, which are counted one by one")]
    ContainsPackages,
    #[error("is part of its package, which is counted whole")]
    PartOfPackage,
    #[error("is a second view of a package that is already counted")]
    Twin,
    #[error("is not a kind of zone that Wattgate knows how to add up")]
    UnknownKind,
    #[error("the kernel shows no powercap zones here, as in most virtual machines and containers")]
    Absent,
    #[error(transparent)]
    Unreadable(#[from] SensorError),
}

/// Looks for RAPL zones under `sysfs_root` (`/sys` on a live system). `idle` is the power of one package with nothing
/// to do, if the operator knows it.
pub fn discover(sysfs_root: &Path, idle: Option<Watts>) -> Discovery {
    let base = sysfs_root.join("class/powercap");
    let mut discovery = Discovery::default();
    let zones = zones(&base, &mut discovery.rejected);
    if zones.is_empty() && discovery.rejected.is_empty() {
        discovery.rejected.push(Rejected { path: base, name: String::new(), why: Why::Absent });
    }
    // Packages first: whether the rest may count depends on which of them are readable.
    let (packages, others): (Vec<Zone>, Vec<Zone>) =
        zones.into_iter().partition(|zone| zone.kind == Kind::Package);
    let mut counted = BTreeSet::new();
    for zone in packages {
        let name = zone.device_name();
        if counted.contains(&name) {
            discovery.reject(zone, Why::Twin);
        } else if discovery.admit(zone, idle) {
            counted.insert(name);
        }
    }
    for zone in others {
        match zone.kind {
            Kind::Psys if !counted.is_empty() => discovery.reject(zone, Why::ContainsPackages),
            Kind::Part => discovery.reject(zone, Why::PartOfPackage),
            Kind::Unknown => discovery.reject(zone, Why::UnknownKind),
            Kind::Dram if !counted.insert(zone.device_name()) => {
                discovery.reject(zone, Why::Twin);
            }
            // The operator's idle power is a package's, so it is not taken off memory.
            Kind::Dram => _ = discovery.admit(zone, None),
            Kind::Package | Kind::Psys => _ = discovery.admit(zone, idle),
        }
    }
    discovery
}

impl Discovery {
    fn reject(&mut self, zone: Zone, why: Why) {
        self.rejected.push(Rejected { path: zone.path, name: zone.name, why });
    }

    /// Takes the zone into use if its counter can be read.
    fn admit(&mut self, zone: Zone, idle: Option<Watts>) -> bool {
        match open(&zone, idle) {
            Ok(sensor) => {
                self.used.push(sensor);
                true
            }
            Err(error) => {
                self.reject(zone, Why::Unreadable(error));
                false
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Package,
    /// Memory of one package, counted beside it.
    Dram,
    /// The whole platform.
    Psys,
    /// Cores or integrated graphics of one package.
    Part,
    Unknown,
}

struct Zone {
    path: PathBuf,
    /// The directory's name, `intel-rapl:0:1`: its place in the tree.
    id: String,
    name: String,
    kind: Kind,
}

impl Zone {
    /// `package-0`, `dram-0`, `psys`: the same for the two views of one zone, which is how twins are found.
    fn device_name(&self) -> String {
        match self.kind {
            Kind::Dram => {
                let package = self.id.split(':').nth(1).unwrap_or_default();
                format!("{}-{package}", self.name)
            }
            _ => self.name.clone(),
        }
    }
}

/// Every zone below `base`, the real interface before its memory-mapped twin.
///
/// The kernel lists all zones flat; some containers mount only a control type's directory, where they are nested.
fn zones(base: &Path, rejected: &mut Vec<Rejected>) -> Vec<Zone> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut directories = vec![(base.to_owned(), 0)];
    while let Some((directory, depth)) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            if !id.starts_with("intel-rapl") || found.contains_key(&id) {
                continue;
            }
            // Control type, package, part: the tree is three deep, and links must not lead in circles.
            if depth < 2 {
                directories.push((entry.path(), depth + 1));
            }
            if id.contains(':') {
                found.insert(id, entry.path());
            }
        }
    }
    let mut zones: Vec<Zone> =
        found.into_iter().filter_map(|(id, path)| zone(id, path, rejected)).collect();
    zones.sort_by_key(|zone| zone.id.starts_with("intel-rapl-mmio"));
    zones
}

fn zone(id: String, path: PathBuf, rejected: &mut Vec<Rejected>) -> Option<Zone> {
    let file = path.join("name");
    match fs::read_to_string(&file) {
        Ok(text) => {
            let name = text.trim().to_owned();
            Some(Zone { kind: kind(&name), path, id, name })
        }
        Err(error) => {
            let why = SensorError::from_io(&file, error).into();
            rejected.push(Rejected { path, name: String::new(), why });
            None
        }
    }
}

fn kind(name: &str) -> Kind {
    match name {
        "psys" => Kind::Psys,
        "dram" => Kind::Dram,
        "core" | "uncore" => Kind::Part,
        _ if name.starts_with("package-") => Kind::Package,
        _ => Kind::Unknown,
    }
}

fn open(zone: &Zone, idle: Option<Watts>) -> Result<RaplSensor, SensorError> {
    let path = zone.path.join("energy_uj");
    let range = read_count(&zone.path.join("max_energy_range_uj"))?;
    let raw = read_count(&path)?;
    let info = DeviceInfo {
        name: zone.device_name().into(),
        source: Source::Rapl,
        quality: Quality::Measured,
        band: Band::EXACT,
        idle,
    };
    let counter = Counter::starting_at(raw, Overflow::WrapsAt(Microjoules(range)));
    Ok(RaplSensor { info, path, counter, last_read: MonotonicNs::now() })
}

fn read_count(path: &Path) -> Result<u64, SensorError> {
    let text = fs::read_to_string(path).map_err(|error| SensorError::from_io(path, error))?;
    text.trim().parse().map_err(|_| SensorError::Malformed { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sysfs").join(name)
    }

    fn used(discovery: &Discovery) -> Vec<&str> {
        discovery.used.iter().map(|sensor| &*sensor.device().name).collect()
    }

    fn rejected(discovery: &Discovery) -> Vec<(String, String)> {
        let id = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        discovery.rejected.iter().map(|r| (id(&r.path), r.why.to_string())).collect()
    }

    #[test]
    fn an_intel_tree_is_counted_once() {
        let discovery = discover(&fixture("intel"), None);
        assert_eq!(used(&discovery), ["package-0", "dram-0"]);
        let why: Vec<(String, String)> = [
            ("intel-rapl-mmio:0", Why::Twin),
            ("intel-rapl:0:0", Why::PartOfPackage),
            ("intel-rapl:0:1", Why::PartOfPackage),
            ("intel-rapl:1", Why::ContainsPackages),
        ]
        .map(|(id, why)| (id.to_owned(), why.to_string()))
        .into();
        let mut found = rejected(&discovery);
        found.sort();
        assert_eq!(found, why);
    }

    #[test]
    fn an_amd_tree_has_packages_only() {
        let discovery = discover(&fixture("amd"), Some(Watts(12.0)));
        assert_eq!(used(&discovery), ["package-0", "package-1"]);
        assert_eq!(discovery.used[0].device().idle, Some(Watts(12.0)));
    }

    #[test]
    fn no_powercap_is_said_and_not_read_as_zero() {
        let discovery = discover(&fixture("container"), None);
        assert!(discovery.used.is_empty());
        assert!(matches!(discovery.rejected[..], [Rejected { why: Why::Absent, .. }]));
    }

    #[test]
    fn a_platform_zone_counts_when_no_package_does() {
        let tree = tempfile::tempdir().unwrap();
        let zone = tree.path().join("class/powercap/intel-rapl:0");
        write_zone(&zone, "psys", "5");
        assert_eq!(used(&discover(tree.path(), None)), ["psys"]);
    }

    #[test]
    fn a_counter_that_holds_no_number_is_rejected_and_not_silently_zero() {
        let discovery = discover(&fixture("unreadable"), None);
        assert!(discovery.used.is_empty(), "{:?}", discovery.used);
        let labels: Vec<&str> = discovery
            .rejected
            .iter()
            .map(|rejected| match &rejected.why {
                Why::Unreadable(error) => error.label(),
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(labels, ["malformed", "io"]);
    }

    #[test]
    fn reads_follow_the_file_over_a_wrap_and_an_error() {
        let tree = tempfile::tempdir().unwrap();
        let zone = tree.path().join("class/powercap/intel-rapl:0");
        write_zone(&zone, "package-0", "262143000000");
        let mut sensor = discover(tree.path(), None).used.remove(0);
        let energy = zone.join("energy_uj");
        assert_eq!(sensor.read().unwrap(), Microjoules(0));
        fs::remove_file(&energy).unwrap();
        assert!(sensor.read().is_err());
        fs::write(&energy, "262143000700\n").unwrap();
        assert_eq!(sensor.read().unwrap(), Microjoules(700), "no wrap after an error");
        std::thread::sleep(std::time::Duration::from_millis(10));
        fs::write(&energy, "150\n").unwrap();
        assert_eq!(sensor.read().unwrap(), Microjoules(700 + 328_850 - 700 + 150));
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
        let discovery = std::thread::spawn(move || {
            let mut held = capabilities(None).unwrap();
            held.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
            set_capabilities(None, held).unwrap();
            discover(&root, None)
        })
        .join()
        .unwrap();
        let [Rejected { why: Why::Unreadable(error @ SensorError::Denied { .. }), .. }] =
            &discovery.rejected[..]
        else {
            panic!("{:?}", discovery.rejected)
        };
        assert!(error.to_string().contains("chmod"), "{error}");
    }

    fn write_zone(directory: &Path, name: &str, energy_uj: &str) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join("name"), format!("{name}\n")).unwrap();
        fs::write(directory.join("energy_uj"), format!("{energy_uj}\n")).unwrap();
        fs::write(directory.join("max_energy_range_uj"), "262143328850\n").unwrap();
    }
}
