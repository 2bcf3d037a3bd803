//! Which of the devices found are metered, so that no joule is counted twice and as few as possible are missed.
//!
//! Pure. Single parts come before the whole: packages and cards tell more than a board's or a machine's one figure, and
//! move faster. The whole is used where no processor can be read. A wall meter counts more than computes, so it is
//! used when there is nothing else, or when somebody says so.

use std::collections::BTreeSet;

use crate::energy::config::SensorChoice;
use crate::energy::sensors::discovered::{Candidate, Kind, Place, Why};

/// For each candidate, in the order of preference, why it is not used; nothing for those that are.
pub fn select(wanted: SensorChoice, candidates: &[Candidate]) -> Vec<Option<Why>> {
    let mut names = BTreeSet::new();
    let usable: Vec<bool> = candidates
        .iter()
        .map(|one| one.sensor.is_ok() && admits(wanted, one) && names.insert(&one.info.name))
        .collect();
    let ready =
        || candidates.iter().zip(&usable).filter(|(_, usable)| **usable).map(|(one, _)| one);
    let processor = ready().find(|one| one.place == Place::Processor).map(|one| one.kind);
    let is_local = |one: &&Candidate| one.place != Place::Elsewhere;
    let only_walls = ready().filter(is_local).all(|one| one.kind == Kind::Wall);
    let whole = ready()
        .filter(|one| one.place == Place::Machine && processor.is_none())
        .find(|one| one.kind != Kind::Wall || only_walls)
        .map(|one| &one.info.name);
    let verdict = |(one, usable): (&Candidate, &bool)| match one.place {
        _ if one.kind == Kind::Wall && whole != Some(&one.info.name) => Some(Why::Reference),
        _ if !admits(wanted, one) => Some(Why::NotAsked),
        _ if !usable => Some(Why::Twin),
        Place::Elsewhere => None,
        Place::Processor => {
            processor.filter(|kind| *kind != one.kind).map(|kind| Why::Counted(kind.label()))
        }
        Place::Machine if processor.is_some() => Some(Why::Contains),
        Place::Machine | Place::Memory | Place::Accelerator => {
            whole.filter(|whole| **whole != one.info.name).map(|whole| Why::Within(whole.clone()))
        }
    };
    candidates.iter().zip(&usable).map(verdict).collect()
}

/// What is elsewhere was configured by name and overlaps with nothing here.
fn admits(wanted: SensorChoice, one: &Candidate) -> bool {
    match wanted {
        SensorChoice::Auto => one.kind != Kind::Battery,
        SensorChoice::None => false,
        wanted => one.place == Place::Elsewhere || wanted.kind() == Some(one.kind),
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

    fn candidate((name, kind, place): (&str, Kind, Place)) -> Candidate {
        let info = info(name, kind, Quality::Measured, Band::EXACT);
        let sensor: Box<dyn Sensor> = Box::new(Still(info.clone()));
        Candidate { kind, info, place, at: String::new(), sensor: Ok(sensor) }
    }

    const PACKAGE: (&str, Kind, Place) = ("package-0", Kind::Rapl, Place::Processor);
    const DRAM: (&str, Kind, Place) = ("dram-0", Kind::Rapl, Place::Memory);
    const PSYS: (&str, Kind, Place) = ("psys", Kind::Rapl, Place::Machine);
    const APU: (&str, Kind, Place) = ("amd-apu", Kind::Hwmon, Place::Processor);
    const ACPI: (&str, Kind, Place) = ("acpi", Kind::Hwmon, Place::Machine);
    const CARD: (&str, Kind, Place) = ("nvidia-0", Kind::Nvml, Place::Accelerator);
    const FAR: (&str, Kind, Place) = ("far", Kind::Prometheus, Place::Elsewhere);
    const PLUG: (&str, Kind, Place) = ("plug", Kind::Wall, Place::Machine);

    fn used(wanted: SensorChoice, found: &[(&'static str, Kind, Place)]) -> Vec<&'static str> {
        let candidates: Vec<Candidate> = found.iter().copied().map(candidate).collect();
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
