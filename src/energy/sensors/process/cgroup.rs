//! CPU time of an engine that has a control group of its own, which includes processes that have
//! ended.
//!
//! Control groups version 2 only. An engine in the gateway's own group is metered by `/proc`
//! instead.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;

use super::cpu_model::CpuModel;
use super::stat::ProcessSensor;
use crate::energy::sensors::sensor::{DeviceInfo, Sample, Sensor, SensorError};
use crate::units::{Microjoules, MonotonicNs};

/// The sensor of an engine's CPU time: of its control group if no other process is in it, else of
/// its process.
pub fn engine_sensor(
    name: Arc<str>,
    sysfs_root: &Path,
    proc_root: &Path,
    pid: u32,
    model: CpuModel,
) -> Box<dyn Sensor> {
    let group = own_group(sysfs_root, proc_root, pid, process::id());
    match group.and_then(|path| CgroupSensor::open(Arc::clone(&name), &path, model).ok()) {
        Some(sensor) => Box::new(sensor),
        None => Box::new(ProcessSensor::new(name, proc_root, pid, model)),
    }
}

/// The directory of the control group that contains only `pid`; `None` if `pid` shares one, in
/// particular the gateway's.
fn own_group(sysfs_root: &Path, proc_root: &Path, pid: u32, gateway: u32) -> Option<PathBuf> {
    let group_of = |pid: u32| {
        let text = fs::read_to_string(proc_root.join(pid.to_string()).join("cgroup")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("0::/").map(str::to_owned))
    };
    let group = group_of(pid).filter(|group| !group.is_empty() && !group.contains(".."))?;
    if group_of(gateway).as_ref() == Some(&group) {
        return None;
    }
    let directory = sysfs_root.join("fs/cgroup").join(group);
    let members = fs::read_to_string(directory.join("cgroup.procs")).ok()?;
    (members.trim() == pid.to_string()).then_some(directory)
}

/// Cumulative CPU energy of one control group since the sensor was created.
struct CgroupSensor {
    info: DeviceInfo,
    path: PathBuf,
    microjoules_per_cpu_second: u64,
    start: u64,
    last: Microjoules,
}

impl CgroupSensor {
    fn open(name: Arc<str>, group: &Path, model: CpuModel) -> Result<Self, SensorError> {
        let path = group.join("cpu.stat");
        let start = usage_us(&path)?;
        let microjoules_per_cpu_second = model.microjoules_per_cpu_second();
        let info = model.device(name);
        Ok(Self { info, path, microjoules_per_cpu_second, start, last: Microjoules::ZERO })
    }
}

impl Sensor for CgroupSensor {
    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    /// `Gone` once the group has been removed.
    fn read(&mut self) -> Result<Sample, SensorError> {
        let used_us = usage_us(&self.path)?.saturating_sub(self.start);
        let energy = u128::from(used_us) * u128::from(self.microjoules_per_cpu_second) / 1_000_000;
        self.last = self.last.max(Microjoules(u64::try_from(energy).unwrap_or(u64::MAX)));
        Ok(Sample { at: MonotonicNs::now(), total: self.last, whole: true })
    }
}

/// `usage_usec` of a `cpu.stat`, in microseconds: user and system time of all processes of the
/// group so far.
fn usage_us(path: &Path) -> Result<u64, SensorError> {
    let text = fs::read_to_string(path).map_err(|error| SensorError::from_io(path, error))?;
    let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse().ok());
    usage.ok_or_else(|| SensorError::Malformed { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine where process 7 is in `group`, with `members`, and the gateway (process 1) in
    /// `/gw`.
    fn machine(group: &str, members: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (pid, group) in [(7, group), (1, "/gw")] {
            let process = root.path().join(format!("proc/{pid}"));
            fs::create_dir_all(&process).unwrap();
            fs::write(process.join("cgroup"), format!("1:name=x:/old\n0::{group}\n")).unwrap();
        }
        let directory = root.path().join("sys/fs/cgroup").join(group.trim_start_matches('/'));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("cgroup.procs"), members).unwrap();
        root
    }

    fn group_in(root: &tempfile::TempDir) -> Option<PathBuf> {
        own_group(&root.path().join("sys"), &root.path().join("proc"), 7, 1)
    }

    #[test]
    fn a_group_counts_only_if_the_engine_has_it_for_itself() {
        assert!(group_in(&machine("/engines/m", "7\n")).is_some());
        assert_eq!(group_in(&machine("/engines/m", "7\n9\n")), None);
        assert_eq!(group_in(&machine("/gw", "7\n")), None);
        assert_eq!(group_in(&machine("/", "7\n")), None);
    }

    #[test]
    fn cpu_time_since_the_start_becomes_joules_and_a_removed_group_is_gone() {
        let root = machine("/engines/m", "7\n");
        let group = group_in(&root).unwrap();
        let write = |us: &str| fs::write(group.join("cpu.stat"), us).unwrap();
        write("usage_usec 5000000\nuser_usec 1\n");
        let mut sensor = CgroupSensor::open("engine:m".into(), &group, CpuModel::DEFAULT).unwrap();
        write("usage_usec 7000000\nuser_usec 1\n");
        assert_eq!(sensor.read().unwrap().total, Microjoules(6_600_000));
        write("usage_usec 6000000\n");
        assert_eq!(sensor.read().unwrap().total, Microjoules(6_600_000), "it never falls");
        write("user_usec 3\n");
        assert_eq!(sensor.read().unwrap_err().label(), "malformed");
        fs::remove_dir_all(&group).unwrap();
        assert_eq!(sensor.read().unwrap_err().label(), "gone");
    }
}
