//! A read-only view of an engine's own files, by Landlock.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope,
};

/// The newest rights that are named here; an older kernel enforces those that it knows.
const KNOWN: ABI = ABI::V6;

/// Besides libraries and model: what the C library and the runtime of threads read.
const SYSTEM_FILES: [&str; 2] = ["/etc/ld.so.cache", "/sys/devices/system/cpu"];

/// What a kernel does not keep engines from, with what it takes.
const BEFORE_6_2: &str = "files that the user may write can be cut to nothing: Linux 6.2 or later";
const BEFORE_6_12: &str = "other processes of the user can be sent signals: Linux 6.12 or later";
const NOT_BUILT: &str = "any file of the user can be opened: Linux 5.13 or later, with Landlock";
const NOT_ENABLED: &str = "any file of the user can be opened: Landlock is not enabled (`lsm=` of the kernel's command line)";
const REFUSED: &str =
    "any file of the user can be opened: this kernel or container refuses Landlock";

/// Takes all other files from the calling thread and what it starts. False if the kernel does not.
pub(super) fn restrict(files: &[PathBuf]) -> bool {
    enforce(files).is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced)
}

/// What this kernel does not keep the calling thread from, which it then restricts.
pub(super) fn lacks() -> Vec<&'static str> {
    let Ok(RestrictionStatus { ruleset, landlock, .. }) = enforce(&[]) else {
        return vec![REFUSED];
    };
    match landlock {
        LandlockStatus::NotImplemented => vec![NOT_BUILT],
        LandlockStatus::NotEnabled => vec![NOT_ENABLED],
        LandlockStatus::Available { .. } if ruleset == RulesetStatus::NotEnforced => vec![REFUSED],
        LandlockStatus::Available { effective_abi, .. } => {
            let since = [(ABI::V3, BEFORE_6_2), (ABI::V6, BEFORE_6_12)];
            since
                .into_iter()
                .filter(|(abi, _)| effective_abi < *abi)
                .map(|(_, lack)| lack)
                .collect()
        }
    }
}

fn enforce(files: &[PathBuf]) -> Result<RestrictionStatus, RulesetError> {
    let read = BitFlags::from(AccessFs::ReadFile);
    let list = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    for file in files {
        rules = allow(rules, file, read)?;
    }
    // A helper is this program again, with the libraries that are mapped now.
    for file in mapped_files() {
        rules = allow(rules, &file, AccessFs::ReadFile | AccessFs::Execute)?;
    }
    for file in SYSTEM_FILES {
        rules = allow(rules, Path::new(file), list)?;
    }
    rules = allow(rules, Path::new("/dev/null"), AccessFs::ReadFile | AccessFs::WriteFile)?;
    rules = allow_own_maps(rules)?;
    rules.restrict_self()
}

/// Adds a rule for a file or folder if it exists.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let Ok(opened) = PathFd::new(path) else { return Ok(rules) };
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(KNOWN) };
    rules.add_rule(PathBeneath::new(opened, access))
}

/// The process reads its own mappings. The folder stays open: the kernel forgets a rule for one
/// that it drops from its cache.
fn allow_own_maps(rules: RulesetCreated) -> Result<RulesetCreated, RulesetError> {
    static OWN: OnceLock<Option<PathFd>> = OnceLock::new();
    match OWN.get_or_init(|| PathFd::new("/proc/self").ok()) {
        Some(own) => rules.add_rule(PathBeneath::new(own, AccessFs::ReadFile | AccessFs::ReadDir)),
        None => Ok(rules),
    }
}

fn mapped_files() -> BTreeSet<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let path = |line: &str| line.find('/').map(|at| PathBuf::from(&line[at..]));
    maps.lines().filter_map(path).collect()
}
