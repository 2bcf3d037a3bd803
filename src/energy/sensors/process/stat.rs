//! A sensor of one process: its CPU time in `/proc/PID/stat`, turned into energy by the CPU model.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;

use super::cpu_model::CpuModel;
use crate::energy::sensors::sensor::{DeviceInfo, Sample, Sensor, SensorError};
use crate::units::{Microjoules, MonotonicNs};

/// Cumulative CPU energy of one process since its start, all threads included.
#[derive(Debug)]
pub struct ProcessSensor {
    info: DeviceInfo,
    path: PathBuf,
    microjoules_per_cpu_second: u64,
    ticks_per_second: u64,
    /// Start of the process in clock ticks after boot; differs for a later process with the same
    /// pid.
    started_ticks: Option<u64>,
    last: Microjoules,
}

impl ProcessSensor {
    /// `proc_root` is `/proc` on a live system. Reads nothing yet.
    pub fn new(name: Arc<str>, proc_root: &Path, pid: u32, model: CpuModel) -> Self {
        let info = model.device(name);
        Self {
            info,
            path: proc_root.join(pid.to_string()).join("stat"),
            microjoules_per_cpu_second: model.microjoules_per_cpu_second(),
            ticks_per_second: rustix::param::clock_ticks_per_second().max(1),
            started_ticks: None,
            last: Microjoules::ZERO,
        }
    }
}

impl Sensor for ProcessSensor {
    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    /// `Gone` once the process has been reaped: its energy after the last read is then unknown.
    fn read(&mut self) -> Result<Sample, SensorError> {
        let text = fs::read_to_string(&self.path)
            .map_err(|error| SensorError::from_io(&self.path, error))?;
        let stat =
            parse(&text).ok_or_else(|| SensorError::Malformed { path: self.path.clone() })?;
        if *self.started_ticks.get_or_insert(stat.started_ticks) != stat.started_ticks {
            return Err(SensorError::Gone { path: self.path.clone() });
        }
        let energy = u128::from(stat.cpu_ticks) * u128::from(self.microjoules_per_cpu_second)
            / u128::from(self.ticks_per_second);
        // The kernel may correct CPU times slightly downwards; the total must not decrease.
        self.last = self.last.max(Microjoules(u64::try_from(energy).unwrap_or(u64::MAX)));
        Ok(Sample { at: MonotonicNs::now(), total: self.last, whole: true })
    }
}

/// Whether `proc_root` shows this process's own pid namespace. A host's tree mounted in a container
/// numbers processes differently: an engine's pid would name another process.
pub fn is_own(proc_root: &Path) -> Result<bool, SensorError> {
    let own = proc_root.join("self");
    let link = fs::read_link(&own).map_err(|error| SensorError::from_io(&own, error))?;
    Ok(link.as_os_str() == process::id().to_string().as_str())
}

struct Stat {
    /// User and system time of all threads, in clock ticks.
    cpu_ticks: u64,
    started_ticks: u64,
}

/// Parses `/proc/PID/stat`, proc(5): the command in parentheses may contain any character, so
/// fields count from the last `)`.
fn parse(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // The state, directly after the parenthesis, is field 3 of the manual page.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat { cpu_ticks: field(14)?.checked_add(field(15)?)?, started_ticks: field(22)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Like the kernel's line, with the fields that count set.
    fn stat_line(command: &str, user: u64, system: u64, started: u64) -> String {
        format!(
            "42 ({command}) S 1 42 42 0 -1 4194560 100 0 0 0 {user} {system} 7 7 20 0 3 0 {started} 1000 50 0"
        )
    }

    fn sensor_at(root: &Path) -> ProcessSensor {
        ProcessSensor::new("engine:m".into(), root, 42, CpuModel::DEFAULT)
    }

    fn write_stat(root: &Path, line: &str) {
        fs::create_dir_all(root.join("42")).unwrap();
        fs::write(root.join("42/stat"), line).unwrap();
    }

    #[test]
    fn cpu_seconds_become_joules_whatever_the_command_is_called() {
        let root = tempfile::tempdir().unwrap();
        let per_second = rustix::param::clock_ticks_per_second();
        write_stat(root.path(), &stat_line("a) R 9 (b", per_second, per_second, 5));
        assert_eq!(sensor_at(root.path()).read().unwrap().total, Microjoules(6_600_000));
    }

    #[test]
    fn a_process_that_ends_or_is_replaced_is_gone() {
        let root = tempfile::tempdir().unwrap();
        write_stat(root.path(), &stat_line("engine", 100, 0, 5));
        let mut sensor = sensor_at(root.path());
        sensor.read().unwrap();
        write_stat(root.path(), &stat_line("stranger", 900, 0, 77));
        assert_eq!(sensor.read().unwrap_err().label(), "gone");
        fs::remove_dir_all(root.path().join("42")).unwrap();
        assert_eq!(sensor.read().unwrap_err().label(), "gone");
    }

    #[test]
    fn the_processes_of_another_namespace_are_not_taken_for_ours() {
        assert!(is_own(Path::new("/proc")).unwrap());
        let host = tempfile::tempdir().unwrap();
        assert_eq!(is_own(host.path()).unwrap_err().label(), "gone");
        std::os::unix::fs::symlink("1", host.path().join("self")).unwrap();
        assert!(!is_own(host.path()).unwrap());
    }

    #[test]
    fn a_line_that_makes_no_sense_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        write_stat(root.path(), "42 (engine) S 1");
        assert_eq!(sensor_at(root.path()).read().unwrap_err().label(), "malformed");
    }
}
