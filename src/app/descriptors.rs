//! File descriptors of the process: as many as it may have, and how many connections they carry.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for everything but connections: files, engines, sensors.
const OTHERS: u64 = 64;

/// Raises the limit of descriptors as far as the process may, and returns how many of the `asked`
/// connections it carries. Without this, engines could not be restarted once clients hold them all.
pub(super) fn connections(asked: u32) -> u32 {
    let limit = getrlimit(Resource::Nofile);
    // macOS refuses what it reports as the maximum.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let descriptors = if raised.is_ok() { limit.maximum } else { limit.current };
    let carried = carried(asked, descriptors);
    if carried < asked {
        tracing::warn!(
            max_connections = carried,
            "the limit of open files (ulimit -n) is too low for {asked} connections"
        );
    }
    carried
}

/// An answered request may need a connection to an upstream beside its own.
fn carried(asked: u32, descriptors: Option<u64>) -> u32 {
    let most = descriptors.map_or(u64::MAX, |all| (all.saturating_sub(OTHERS) / 2).max(1));
    asked.min(u32::try_from(most).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_descriptors_carry_connections() {
        for (descriptors, expected) in
            [(None, 4096), (Some(1 << 20), 4096), (Some(1024), 480), (Some(64), 1), (Some(0), 1)]
        {
            assert_eq!(carried(4096, descriptors), expected, "{descriptors:?}");
        }
    }
}
