//! Hardware kind of this machine, as far as energy depends on it: processor name and number of
//! logical CPUs.
//!
//! Two machines of the same build are equal.

use std::fmt;
use std::fs;
use std::process::Command;
use std::thread;

use serde::{Deserialize, Serialize};

/// The kind of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// Name of the processor, or of the board if the processor has none.
    pub processor: String,
    /// Logical CPUs of the machine, including those this process must not use.
    pub cpus: usize,
}

impl Hardware {
    pub fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let board = || fs::read_to_string("/proc/device-tree/model").ok();
        let found = name(&cpuinfo).or_else(board).or_else(of_macos);
        let processor = found.unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let cpus = match values(&cpuinfo, "processor").count() {
            0 => thread::available_parallelism().map_or(1, usize::from),
            counted => counted,
        };
        Self { processor: tidy(&processor), cpus }
    }
}

impl fmt::Display for Hardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} logical CPUs)", self.processor, self.cpus)
    }
}

/// The processor's name in `/proc/cpuinfo`; kernels of ARM machines omit it.
fn name(cpuinfo: &str) -> Option<String> {
    values(cpuinfo, "model name").next().map(str::to_owned)
}

fn values<'a>(cpuinfo: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let pairs = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    pairs.filter(move |(name, _)| name.trim() == key).map(|(_, value)| value.trim())
}

fn of_macos() -> Option<String> {
    if !cfg!(target_os = "macos") {
        return None;
    }
    let output = Command::new("/usr/sbin/sysctl").args(["-n", "machdep.cpu.brand_string"]).output();
    String::from_utf8(output.ok()?.stdout).ok()
}

/// The name without control characters (strings of a device tree end with a zero) and runs of
/// spaces.
fn tidy(name: &str) -> String {
    name.replace(char::is_control, " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_known_by_its_name_and_this_machine_has_one() {
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD EPYC 9B14\n\nprocessor\t: 1\nmodel name\t: AMD EPYC 9B14\n";
        assert_eq!(name(cpuinfo).as_deref(), Some("AMD EPYC 9B14"));
        assert_eq!(values(cpuinfo, "processor").count(), 2);
        assert_eq!(name("processor\t: 0\nCPU part\t: 0xd0c\n"), None);
        assert_eq!(tidy("Raspberry  Pi 5 Model B\0"), "Raspberry Pi 5 Model B");
        let here = Hardware::here();
        assert!(!here.processor.is_empty() && here.cpus > 0);
        assert_eq!(here, Hardware::here());
    }
}
