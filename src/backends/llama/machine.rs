//! What this machine really gives: memory, with the limit of the control group this process lives in.
//!
//! Reads a few files below the roots it is told; decides nothing. (For cores the standard library does the same.)

use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel's files are.
#[derive(Clone, Debug)]
pub struct Roots {
    pub proc: PathBuf,
    pub sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into() }
    }
}

/// Bytes of memory this process may use at most: the machine's, or less if its control group has a limit. `None` where
/// nobody says.
pub fn memory_bytes(roots: &Roots) -> Option<u64> {
    let total = fs::read_to_string(roots.proc.join("meminfo")).ok().and_then(|text| total(&text));
    group_limits(roots).into_iter().chain(total).min()
}

/// Bytes of a process that are in memory now; shared pages count in full.
pub fn resident_bytes(roots: &Roots, pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(roots.proc.join(pid.to_string()).join("statm")).ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(u64::try_from(rustix::param::page_size()).unwrap_or(4096)))
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib.saturating_mul(1024))
}

/// Limits of the control group and of all above it, in both versions' layouts.
fn group_limits(roots: &Roots) -> Vec<u64> {
    let groups = fs::read_to_string(roots.proc.join("self/cgroup")).unwrap_or_default();
    let mut limits = Vec::new();
    for line in groups.lines() {
        // hierarchy:controllers:path
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (mount, file) = if controllers.is_empty() {
            (roots.sys.join("fs/cgroup"), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (roots.sys.join("fs/cgroup/memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        let ancestors = Path::new(group.trim_start_matches('/')).ancestors();
        let read = |group: &Path| fs::read_to_string(mount.join(group).join(file)).ok();
        // "max", and version 1's huge number, are no limits: the machine's memory is less.
        limits
            .extend(ancestors.filter_map(read).filter_map(|text| text.trim().parse::<u64>().ok()));
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let roots = Roots { proc: dir.path().join("proc"), sys: dir.path().join("sys") };
        (dir, roots)
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       1000 kB\nMemFree: 5 kB\n");

    #[test]
    fn the_tightest_limit_counts() {
        let (_dir, roots) = machine(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", "300000\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
        ]);
        assert_eq!(memory_bytes(&roots), Some(300_000));
    }

    #[test]
    fn the_first_version_of_control_groups_counts_too() {
        let (_dir, roots) = machine(&[
            MEMINFO,
            ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/1\n"),
            ("sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "200000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(memory_bytes(&roots), Some(200_000));
    }

    #[test]
    fn without_limits_it_is_the_machine_and_without_files_unknown() {
        let (_dir, roots) = machine(&[MEMINFO]);
        assert_eq!(memory_bytes(&roots), Some(1_024_000));
        let (_dir, roots) = machine(&[]);
        assert_eq!(memory_bytes(&roots), None);
    }

    #[test]
    fn this_process_is_in_memory() {
        let bytes = resident_bytes(&Roots::default(), std::process::id()).unwrap();
        assert!((1 << 20..1 << 40).contains(&bytes), "{bytes}");
        assert_eq!(resident_bytes(&Roots::default(), u32::MAX), None);
    }
}
