//! Energy and power channels under `/sys/class/hwmon`: AMD and Intel cards, counters of AMD
//! packages, power meters of machines and power supplies, NVIDIA Grace.
//!
//! Units are the kernel's: microjoules and microwatts. A channel whose `_enable` is 0 is skipped.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::counter_file::CounterFile;
use super::file;
use super::power_channel::{PowerChannel, is_suspended};
use crate::energy::figure::Quality;
use crate::energy::sensors::counter::{Counter, Overflow};
use crate::energy::sensors::coverage::Coverage;
use crate::energy::sensors::discovered::{Discovered, Kind, SkipReason, info, with_idle};
use crate::energy::sensors::sensor::{Band, DeviceInfo, Sensor, SensorError};
use crate::units::{MonotonicNs, Watts};

/// Quality and band of a power reading that the driver averages over its interval.
const AVERAGED: (Quality, Band) = (Quality::Measured, Band::AVERAGED);
/// Quality and band of an instantaneous power reading.
pub const SAMPLED: (Quality, Band) = (Quality::Estimated, Band::SAMPLED);

/// Power channels in order of preference: the driver's mean, then the instantaneous power.
const POWER: [(&str, (Quality, Band)); 2] =
    [("power1_average", AVERAGED), ("power1_input", SAMPLED)];

/// Finds the devices of known drivers under `sysfs_root`. `idle` is the configured idle power of
/// one package.
pub fn find(sysfs_root: &Path, idle: Option<Watts>) -> Vec<Discovered> {
    let devices = file::entries(&sysfs_root.join("class/hwmon"));
    let found = devices.into_iter().flat_map(|(id, path)| {
        match file::word(&path.join("name")).as_deref() {
            Some("amdgpu") => amdgpu(&id, &path, idle),
            Some("i915" | "xe") => intel(&id, &path),
            Some("power_meter") => power_meter(&id, &path, idle),
            Some("amd_energy" | "zenergy") => amd_energy(&path, idle),
            Some("fam15h_power") => first_power("package-0", Coverage::Processor, &path, idle),
            Some("corsairpsu") => labelled("corsairpsu", &path, "power total"),
            Some("macsmc_hwmon") => labelled("macsmc", &path, "Total System Power"),
            Some("occ") => labelled("occ", &path, "system"),
            _ => Vec::new(),
        }
    });
    let mut found: Vec<Discovered> = found.collect();
    second_dies(&mut found);
    found
}

/// An AMD card, or the GPU of an APU, whose figure is that of the whole package.
fn amdgpu(id: &str, path: &Path, idle: Option<Watts>) -> Vec<Discovered> {
    // Only a discrete card has a fan, a junction sensor or memory controller statistics.
    let signs = ["fan1_input", "pwm1", "temp2_input", "device/mem_busy_percent"];
    let discrete = signs.into_iter().any(|name| path.join(name).exists());
    if discrete {
        let address = pci_address(path).unwrap_or_else(|| id.to_owned());
        first_power(&format!("amdgpu-{address}"), Coverage::Accelerator, path, None)
    } else {
        first_power("amd-apu", Coverage::Processor, path, idle)
    }
}

/// The first power channel that can be read, else the first.
fn first_power(
    name: &str,
    coverage: Coverage,
    path: &Path,
    idle: Option<Watts>,
) -> Vec<Discovered> {
    let channels = POWER.into_iter().map(|(channel, trust)| (path.join(channel), trust));
    let found: Vec<Discovered> = channels
        .filter(|(channel, _)| channel.exists())
        .map(|(channel, trust)| power(name.to_owned(), coverage, &channel, trust, idle))
        .collect();
    let readable = found.iter().position(|one| one.sensor.is_ok()).unwrap_or(0);
    found.into_iter().nth(readable).into_iter().collect()
}

/// The channel with this label, of a driver whose channels are parts of one another: the power of
/// the whole machine.
fn labelled(name: &str, path: &Path, label: &str) -> Vec<Discovered> {
    let channel = (1..=16).find_map(|n| {
        let text = file::word(&path.join(format!("power{n}_label")))?;
        text.eq_ignore_ascii_case(label).then(|| path.join(format!("power{n}_input")))
    });
    let found =
        channel.map(|channel| power(name.to_owned(), Coverage::Machine, &channel, SAMPLED, None));
    found.into_iter().collect()
}

/// Marks cards that read 0 W beside one of the same model that does not: the second half of a card
/// with two dies, whose first half's figure holds both (`MI2xx`).
fn second_dies(found: &mut [Discovered]) {
    let model = |one: &Discovered| {
        let hwmon = Path::new(&one.at).parent()?;
        Some(file::word(&hwmon.join("device/device")))
    };
    let draws = |one: &Discovered| file::count(Path::new(&one.at)).is_ok_and(|power| power > 0);
    let is_card = |one: &Discovered| {
        one.coverage == Coverage::Accelerator && one.info.name.starts_with("amdgpu-")
    };
    let first_halves: Vec<_> =
        found.iter().filter(|one| is_card(one) && draws(one)).map(&model).collect();
    for one in found.iter_mut().filter(|one| is_card(one)) {
        let zero = file::count(Path::new(&one.at)).is_ok_and(|power| power == 0);
        if zero && !is_suspended(Path::new(&one.at)) && first_halves.contains(&model(one)) {
            one.sensor = Err(SkipReason::SecondDie);
        }
    }
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
    vec![energy(name, Coverage::Accelerator, channel, None)]
}

/// ACPI power meters: of the whole machine or, on NVIDIA Grace, of each part, named by its OEM
/// string.
fn power_meter(id: &str, path: &Path, idle: Option<Watts>) -> Vec<Discovered> {
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
    let mut candidate = power(name, coverage, &path.join("power1_average"), AVERAGED, idle);
    if part {
        candidate.sensor = Err(SkipReason::PartOfPackage);
    }
    vec![candidate]
}

/// Counters of AMD packages on kernels with the `amd_energy` driver: `Esocket0` and following;
/// those of cores are parts.
fn amd_energy(path: &Path, idle: Option<Watts>) -> Vec<Discovered> {
    let sockets = (1..=1024).map_while(|n| {
        let label = file::word(&path.join(format!("energy{n}_label")))?;
        Some((label, path.join(format!("energy{n}_input"))))
    });
    sockets
        .filter_map(|(label, channel)| {
            let socket = label.strip_prefix("Esocket")?;
            Some(energy(format!("package-{}", socket.trim()), Coverage::Processor, &channel, idle))
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

/// The highest power that a device states, in microwatts.
fn rated(channel: &Path) -> Option<u64> {
    let files = ["power1_cap_max", "power1_cap", "power1_max", "power1_rated_max"];
    files.into_iter().filter_map(|name| file::count(&channel.with_file_name(name)).ok()).max()
}

fn energy(name: String, coverage: Coverage, channel: &Path, idle: Option<Watts>) -> Discovered {
    let band = if coverage == Coverage::Accelerator { Band::CARD } else { Band::PROCESSOR };
    let info = with_idle(info(name, Kind::Hwmon, Quality::Measured, band), idle);
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
    let counter =
        Counter::starting_at(raw, MonotonicNs::now(), name, Overflow::Never).rated(rated(channel));
    Ok(Box::new(CounterFile { info, path: channel.to_owned(), counter }))
}

fn power(
    name: String,
    coverage: Coverage,
    channel: &Path,
    (quality, band): (Quality, Band),
    idle: Option<Watts>,
) -> Discovered {
    // The configured idle power is that of a package.
    let idle = idle.filter(|_| coverage == Coverage::Processor);
    let info = with_idle(info(name, Kind::Hwmon, quality, band), idle);
    let at = channel.display().to_string();
    let sensor = open_power(info.clone(), coverage, channel);
    Discovered { kind: Kind::Hwmon, info, coverage, at, sensor }
}

fn open_power(
    info: DeviceInfo,
    coverage: Coverage,
    channel: &Path,
) -> Result<Box<dyn Sensor>, SkipReason> {
    if is_off(channel) {
        return Err(SkipReason::SwitchedOff);
    }
    let mut sensor = PowerChannel::new(info, channel.to_owned(), rated(channel));
    match sensor.read() {
        // A card sleeps until a model uses it; everything else always draws power.
        Err(SensorError::NoPower { .. } | SensorError::Asleep { .. })
            if coverage == Coverage::Accelerator => {}
        reading => drop(reading?),
    }
    Ok(Box::new(sensor))
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
        let mut found = find(root, None);
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
    fn the_second_die_of_a_card_is_skipped_and_a_card_that_sleeps_is_not() {
        let root = tempfile::tempdir().unwrap();
        let card = |n: u32, power: &str, model: &str| {
            let path = root.path().join(format!("class/hwmon/hwmon{n}"));
            fs::create_dir_all(path.join("device")).unwrap();
            fs::write(path.join("name"), "amdgpu\n").unwrap();
            fs::write(path.join("power1_average"), power).unwrap();
            fs::write(path.join("temp2_input"), "30000\n").unwrap();
            fs::write(path.join("device/device"), model).unwrap();
        };
        card(0, "150000000\n", "0x740c\n");
        card(1, "0\n", "0x740c\n");
        card(2, "0\n", "0x73bf\n");
        let mut found = find(root.path(), None);
        assert!(found[0].sensor.is_ok());
        assert!(matches!(found[1].sensor, Err(SkipReason::SecondDie)));
        let asleep = found[2].sensor.as_mut().unwrap();
        assert_eq!(asleep.read().unwrap_err().label(), "no_power");
    }

    /// MangoHud#1202: `power1_average` fails beside a good `power1_input`.
    #[test]
    fn the_next_channel_is_used_where_the_first_cannot_be_read() {
        let root = tempfile::tempdir().unwrap();
        let files = [("name", "amdgpu\n"), ("power1_input", "9000000\n"), ("fan1_input", "900")];
        let path = device(root.path(), &files);
        fs::create_dir(path.join("power1_average")).unwrap();
        let card = only(root.path());
        assert_eq!((card.info.quality, card.sensor.is_ok()), (Quality::Estimated, true));
    }

    #[test]
    fn the_whole_of_a_power_supply_is_read_and_not_its_rails() {
        for (driver, label) in
            [("corsairpsu", "power total"), ("macsmc_hwmon", "Total System Power")]
        {
            let root = tempfile::tempdir().unwrap();
            let name = format!("{driver}\n");
            let files = [
                ("name", name.as_str()),
                ("power1_label", "a rail"),
                ("power1_input", "5000000\n"),
                ("power2_label", label),
                ("power2_input", "90000000\n"),
            ];
            device(root.path(), &files);
            let found = only(root.path());
            assert_eq!((found.coverage, found.sensor.is_ok()), (Coverage::Machine, true));
            assert!(found.at.ends_with("power2_input"), "{}", found.at);
        }
    }

    /// deepcool-digital-linux#114: world-readable counters of AMD packages.
    #[test]
    fn the_sockets_of_zenergy_are_packages_with_the_configured_idle_power() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("name", "zenergy\n"),
            ("energy1_label", "Ecore000\n"),
            ("energy1_input", "7\n"),
            ("energy2_label", "Esocket0\n"),
            ("energy2_input", "100\n"),
        ];
        device(root.path(), &files);
        let found = find(root.path(), Some(Watts(12.0)));
        assert_eq!((&*found[0].info.name, found.len()), ("package-0", 1));
        assert_eq!(found[0].info.idle, Some(Watts(12.0)));
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
