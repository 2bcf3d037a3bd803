//! Resources of this machine: memory within the limit of its control group, cores, GPUs.
//!
//! Reads files below the given roots and runs the vendor's own tool.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::recommend::{Gpu, GpuMemory, Machine};

/// Mount points of the kernel's file systems.
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

/// Longest run of a vendor's tool: a stuck driver blocks it.
const TOOL_TIMEOUT: Duration = Duration::from_secs(10);

impl Machine {
    /// Returns the resources that this process may use. `None` if the amount of memory is unknown.
    pub fn detect(roots: &Roots) -> Option<Self> {
        let memory_bytes = memory_bytes(roots)?;
        // Includes the CPU quota of the control group.
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let mut gpus = nvidia(roots);
        gpus.extend(amd(roots));
        if cfg!(all(target_os = "macos", target_arch = "aarch64")) {
            gpus.push(Gpu { name: "Apple GPU".into(), memory: GpuMemory::Shared });
        }
        Some(Self { memory_bytes, cores, gpus })
    }
}

/// Returns the bytes of memory that this process may use at most: all of the machine's, or less if
/// its control group has a limit. `None` if unknown.
pub fn memory_bytes(roots: &Roots) -> Option<u64> {
    let total = fs::read_to_string(roots.proc.join("meminfo")).ok().and_then(|text| total(&text));
    group_limits(roots).into_iter().chain(total).min().or_else(memory_of_macos)
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Memory limits of the process's control group and its ancestors, in the layouts of both versions.
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
        // "max" does not parse. Version 1 writes a huge number, which is above the machine's
        // memory.
        limits
            .extend(ancestors.filter_map(read).filter_map(|text| text.trim().parse::<u64>().ok()));
    }
    limits
}

fn memory_of_macos() -> Option<u64> {
    if !cfg!(target_os = "macos") {
        return None;
    }
    output_of("sysctl", &["-n", "hw.memsize"])?.trim().parse().ok()
}

/// NVIDIA GPUs from `nvidia-smi`, or else from the driver's files, which do not include the memory.
fn nvidia(roots: &Roots) -> Vec<Gpu> {
    let query = ["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"];
    if let Some(table) = output_of("nvidia-smi", &query) {
        return table.lines().filter_map(nvidia_row).collect();
    }
    let gpus = fs::read_dir(roots.proc.join("driver/nvidia/gpus"));
    gpus.into_iter()
        .flatten()
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.ok()?.path().join("information")).ok()?;
            let name = text.lines().find_map(|line| line.strip_prefix("Model:"))?.trim().to_owned();
            Some(Gpu { name, memory: GpuMemory::Unknown })
        })
        .collect()
}

/// One line of the tool's table: `NVIDIA H200, 143771`, the memory in MiB or `[N/A]`.
fn nvidia_row(line: &str) -> Option<Gpu> {
    let (name, mib) = line.rsplit_once(',')?;
    let bytes = mib.trim().parse::<u64>().ok().and_then(|mib| mib.checked_mul(1 << 20));
    let memory = bytes.map_or(GpuMemory::Unknown, GpuMemory::Own);
    Some(Gpu { name: name.trim().to_owned(), memory })
}

/// AMD GPUs whose driver reports their memory.
fn amd(roots: &Roots) -> Vec<Gpu> {
    let cards = fs::read_dir(roots.sys.join("class/drm")).into_iter().flatten();
    let mut cards: Vec<PathBuf> =
        cards.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_card(path)).collect();
    cards.sort();
    let gpu = |card: PathBuf| {
        let read = |file| fs::read_to_string(card.join("device").join(file)).ok();
        let bytes = read("mem_info_vram_total")?.trim().parse().ok()?;
        let name = read("product_name").map(|name| name.trim().to_owned());
        let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| "AMD GPU".into());
        Some(Gpu { name, memory: GpuMemory::Own(bytes) })
    };
    cards.into_iter().filter_map(gpu).collect()
}

/// `card0`, not its connectors (`card0-DP-1`).
fn is_card(path: &Path) -> bool {
    let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix("card"));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Returns the output of a program; `None` if it is missing, fails or takes too long.
fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let deadline = Instant::now() + TOOL_TIMEOUT;
    // The output of these tools fits into the pipe, so they exit without being read.
    while child.try_wait().ok()?.is_none() {
        if Instant::now() >= deadline {
            // A process that cannot be killed is left to the system.
            let _ = child.kill();
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
    let mut text = String::new();
    child.stdout.take()?.read_to_string(&mut text).ok()?;
    child.wait().ok()?.success().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Roots) {
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
    fn memory_is_the_tightest_limit_of_the_control_groups() {
        let (_dir, roots) = tree(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", "300000\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
        ]);
        assert_eq!(memory_bytes(&roots), Some(300_000));
        let (_dir, roots) = tree(&[
            MEMINFO,
            ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/1\n"),
            ("sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "200000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(memory_bytes(&roots), Some(200_000));
    }

    #[test]
    fn memory_without_limits_is_the_machines_and_without_files_unknown() {
        let (_dir, roots) = tree(&[MEMINFO]);
        assert_eq!(memory_bytes(&roots), Some(1_024_000));
        let (_dir, roots) = tree(&[("proc/meminfo", "MemTotal: many kB\n")]);
        assert_eq!(memory_bytes(&roots), None);
    }

    #[test]
    fn gpus_are_listed_with_their_memory_if_it_is_known() {
        let gpu = |name: &str, memory| Gpu { name: name.into(), memory };
        let own = GpuMemory::Own(143_771 << 20);
        assert_eq!(nvidia_row("NVIDIA H200, 143771"), Some(gpu("NVIDIA H200", own)));
        let unknown = gpu("NVIDIA GB10", GpuMemory::Unknown);
        assert_eq!(nvidia_row("NVIDIA GB10, [N/A]"), Some(unknown));
        assert_eq!(nvidia_row("No devices were found"), None);

        let (_dir, roots) = tree(&[
            ("sys/class/drm/card1/device/mem_info_vram_total", "17163091968\n"),
            ("sys/class/drm/card1/device/product_name", "\n"),
            ("sys/class/drm/card1-DP-1/device/mem_info_vram_total", "17163091968\n"),
            ("sys/class/drm/card0/device/vendor", "0x8086\n"),
        ]);
        assert_eq!(amd(&roots), [gpu("AMD GPU", GpuMemory::Own(17_163_091_968))]);
    }

    #[test]
    fn a_missing_or_failing_tool_yields_no_output() {
        assert_eq!(output_of("wattgate-has-no-such-tool", &[]), None);
        assert_eq!(output_of("false", &[]), None);
        assert_eq!(output_of("echo", &["1"]).as_deref(), Some("1\n"));
    }

    #[test]
    fn the_resources_of_this_machine_can_be_read() {
        let machine = Machine::detect(&Roots::default()).unwrap();
        assert!(machine.memory_bytes > 1 << 26 && machine.cores > 0, "{machine:?}");
    }
}
