//! Plausibility of power readings, and the longest time between two. Pure.
//!
//! A gauge that reads 0 W is broken or suspended: energy of that time is unknown, never 0 J.

use std::sync::Arc;
use std::time::Duration;

use super::sensor::SensorError;

/// Energy between power readings further apart than this is unknown.
pub const LONGEST_GAP: Duration = Duration::from_millis(2500);

/// Power above which a reading is garbage: no device draws that much.
const IMPLAUSIBLE_MICROWATTS: u64 = 20_000_000_000;

/// A power reading, refused if no device could draw that much.
pub fn plausible(microwatts: u64, device: &Arc<str>) -> Result<u64, SensorError> {
    if microwatts > IMPLAUSIBLE_MICROWATTS {
        let why = format!("reads {} W", microwatts / 1_000_000);
        return Err(SensorError::Refused { device: Arc::clone(device), why });
    }
    Ok(microwatts)
}

/// The power reading of an active device, refused if it is 0 or implausible.
pub fn running(microwatts: u64, device: &Arc<str>) -> Result<u64, SensorError> {
    if microwatts == 0 {
        return Err(SensorError::NoPower { device: Arc::clone(device) });
    }
    plausible(microwatts, device)
}
