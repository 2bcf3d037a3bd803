//! Selection among the devices found, so that no joule is counted twice and as few as possible are
//! missed. Pure.
//!
//! Parts are preferred to the whole: packages and cards give separate figures and update faster
//! than a board or machine. The whole is used if no processor can be read. A wall meter includes
//! non-computing parts, so it is used only without another sensor, or if configured.

use std::collections::BTreeSet;

use crate::energy::config::SensorChoice;
use crate::energy::sensors::coverage::Coverage;
use crate::energy::sensors::discovered::{Discovered, Kind, SkipReason};

/// For each device, in order of preference, why it is not used; `None` for a selected one.
pub(super) fn select(wanted: SensorChoice, candidates: &[Discovered]) -> Vec<Option<SkipReason>> {
    let mut names = BTreeSet::new();
    let usable: Vec<bool> = candidates
        .iter()
        .map(|one| one.sensor.is_ok() && admits(wanted, one) && names.insert(&one.info.name))
        .collect();
    let ready =
        || candidates.iter().zip(&usable).filter(|(_, usable)| **usable).map(|(one, _)| one);
    let processor = ready().find(|one| one.coverage == Coverage::Processor).map(|one| one.kind);
    let is_local = |one: &&Discovered| one.coverage != Coverage::Elsewhere;
    let only_walls = ready().filter(is_local).all(|one| one.kind == Kind::Wall);
    let whole = ready()
        .filter(|one| one.coverage == Coverage::Machine && processor.is_none())
        .find(|one| one.kind != Kind::Wall || only_walls)
        .map(|one| &one.info.name);
    let verdict = |(one, usable): (&Discovered, &bool)| match one.coverage {
        _ if one.kind == Kind::Wall && whole != Some(&one.info.name) => Some(SkipReason::Reference),
        _ if !admits(wanted, one) => Some(SkipReason::NotAsked),
        _ if !usable => Some(SkipReason::Twin),
        Coverage::Elsewhere => None,
        Coverage::Processor => {
            processor.filter(|kind| *kind != one.kind).map(|kind| SkipReason::Counted(kind.label()))
        }
        Coverage::Machine if processor.is_some() => Some(SkipReason::Contains),
        Coverage::Machine | Coverage::Memory | Coverage::Accelerator => whole
            .filter(|whole| **whole != one.info.name)
            .map(|whole| SkipReason::Within(whole.clone())),
    };
    candidates.iter().zip(&usable).map(verdict).collect()
}

/// Whether the config allows the device. Devices elsewhere are configured by name and overlap with
/// none here.
fn admits(wanted: SensorChoice, one: &Discovered) -> bool {
    match wanted {
        SensorChoice::Auto => one.kind != Kind::Battery,
        SensorChoice::None => false,
        wanted => one.coverage == Coverage::Elsewhere || wanted.kind() == Some(one.kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::figure::Quality;
    use crate::energy::sensors::discovered::info;
    use crate::energy::sensors::sensor::{Band, DeviceInfo, Sample, Sensor, SensorError};

    struct Still(DeviceInfo);

    impl Sensor for Still {
        fn device(&self) -> &DeviceInfo {
            &self.0
        }

        fn read(&mut self) -> Result<Sample, SensorError> {
            Err(SensorError::Gone { path: "/".into() })
        }
    }

    fn candidate((name, kind, coverage): (&str, Kind, Coverage)) -> Discovered {
        let info = info(name, kind, Quality::Measured, Band::EXACT);
        let sensor: Box<dyn Sensor> = Box::new(Still(info.clone()));
        Discovered { kind, info, coverage, at: String::new(), sensor: Ok(sensor) }
    }

    const PACKAGE: (&str, Kind, Coverage) = ("package-0", Kind::Rapl, Coverage::Processor);
    const DRAM: (&str, Kind, Coverage) = ("dram-0", Kind::Rapl, Coverage::Memory);
    const PSYS: (&str, Kind, Coverage) = ("psys", Kind::Rapl, Coverage::Machine);
    const APU: (&str, Kind, Coverage) = ("amd-apu", Kind::Hwmon, Coverage::Processor);
    const ACPI: (&str, Kind, Coverage) = ("acpi", Kind::Hwmon, Coverage::Machine);
    const CARD: (&str, Kind, Coverage) = ("nvidia-0", Kind::Nvml, Coverage::Accelerator);
    const FAR: (&str, Kind, Coverage) = ("far", Kind::Prometheus, Coverage::Elsewhere);
    const PLUG: (&str, Kind, Coverage) = ("plug", Kind::Wall, Coverage::Machine);

    fn used(wanted: SensorChoice, found: &[(&'static str, Kind, Coverage)]) -> Vec<&'static str> {
        let candidates: Vec<Discovered> = found.iter().copied().map(candidate).collect();
        let verdicts = select(wanted, &candidates);
        let used = found.iter().zip(&verdicts).filter(|(_, why)| why.is_none());
        used.map(|((name, ..), _)| *name).collect()
    }

    #[test]
    fn parts_come_before_the_whole_and_nothing_counts_twice() {
        let all = [PACKAGE, DRAM, PSYS, PACKAGE, APU, ACPI, CARD, FAR, PLUG];
        assert_eq!(used(SensorChoice::Auto, &all), ["package-0", "dram-0", "nvidia-0", "far"]);
        assert_eq!(used(SensorChoice::Auto, &[APU, CARD]), ["amd-apu", "nvidia-0"]);
    }

    #[test]
    fn the_whole_counts_where_no_processor_can_be_read_and_then_alone() {
        assert_eq!(used(SensorChoice::Auto, &[PSYS, ACPI, CARD, FAR, PLUG]), ["psys", "far"]);
        assert_eq!(used(SensorChoice::Auto, &[CARD, PLUG]), ["nvidia-0"]);
        assert_eq!(used(SensorChoice::Auto, &[PLUG, FAR]), ["plug", "far"]);
    }

    #[test]
    fn what_is_asked_for_is_used_and_nothing_else_here() {
        let all = [PACKAGE, DRAM, PSYS, ACPI, CARD, FAR, PLUG];
        assert_eq!(used(SensorChoice::Wall, &all), ["far", "plug"]);
        assert_eq!(used(SensorChoice::Hwmon, &all), ["acpi", "far"]);
        assert_eq!(used(SensorChoice::Nvml, &all), ["nvidia-0", "far"]);
        assert_eq!(used(SensorChoice::CpuModel, &all), ["far"]);
        assert!(used(SensorChoice::None, &all).is_empty());
    }
}
