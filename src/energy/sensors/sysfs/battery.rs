//! Laptop batteries. Never used as sensors, but listed with the reason: no power leaves them while
//! plugged in.

use std::path::Path;

use super::file;
use crate::energy::figure::Quality;
use crate::energy::sensors::coverage::Coverage;
use crate::energy::sensors::discovered::{Discovered, Kind, SkipReason, info};
use crate::energy::sensors::sensor::Band;

/// The batteries under `sysfs_root` that report power or current.
pub fn find(sysfs_root: &Path) -> Vec<Discovered> {
    let supplies = file::entries(&sysfs_root.join("class/power_supply")).into_iter();
    let batteries = supplies.filter(|(_, path)| {
        let battery = file::word(&path.join("type")).is_some_and(|word| word == "Battery");
        battery && ["power_now", "current_now"].iter().any(|name| path.join(name).exists())
    });
    batteries
        .map(|(id, path)| Discovered {
            kind: Kind::Battery,
            info: info(id, Kind::Battery, Quality::Estimated, Band { low: 0.8, high: 1.2 }),
            coverage: Coverage::Machine,
            at: path.display().to_string(),
            sensor: Err(SkipReason::Battery),
        })
        .collect()
}
