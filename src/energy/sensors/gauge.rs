//! What a power reading can be, whoever gives it, and how far apart two may lie.
//!
//! A gauge that shows nothing is broken or asleep: its time is unknown, never 0 J.

use std::sync::Arc;
use std::time::Duration;

use super::sensor::SensorError;

/// Power readings further apart than this tell nothing of the time between.
pub const LONGEST_GAP: Duration = Duration::from_millis(2500);

/// More than one device can draw: the register held garbage.
const IMPLAUSIBLE_MICROWATTS: u64 = 20_000_000_000;

/// A power reading, if a device could draw that.
pub fn plausible(microwatts: u64, device: &Arc<str>) -> Result<u64, SensorError> {
    if microwatts > IMPLAUSIBLE_MICROWATTS {
        let why = format!("reads {} W", microwatts / 1_000_000);
        return Err(SensorError::Refused { device: Arc::clone(device), why });
    }
    Ok(microwatts)
}

/// The power reading of something that runs, which draws some: 0 is a meter that does not work.
pub fn running(microwatts: u64, device: &Arc<str>) -> Result<u64, SensorError> {
    if microwatts == 0 {
        return Err(SensorError::NoPower { device: Arc::clone(device) });
    }
    plausible(microwatts, device)
}
