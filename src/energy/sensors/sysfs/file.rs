//! Numbers and words in sysfs files.
//!
//! Each read opens the file again, so that a removed or replaced file is detected.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::energy::sensors::sensor::SensorError;

/// The unsigned integer in a file of one line.
pub fn count(path: &Path) -> Result<u64, SensorError> {
    let failed = |error| SensorError::from_io(path, error);
    // The longest `u64` has 20 digits. A buffer on the stack avoids an allocation at every tick.
    let mut buffer = [0; 32];
    let mut file = File::open(path).map_err(failed)?;
    let mut length = 0;
    loop {
        match file.read(&mut buffer[length..]).map_err(failed)? {
            0 => break,
            more => length += more,
        }
    }
    let text = std::str::from_utf8(&buffer[..length]).ok();
    text.and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| SensorError::Malformed { path: path.to_owned() })
}

/// The first line of a file; `None` if it cannot be read.
pub fn word(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.lines().next()?.trim().to_owned())
}

/// The entries of a directory in natural order; empty if it cannot be read.
pub fn entries(directory: &Path) -> Vec<(String, PathBuf)> {
    let mut found: Vec<(String, PathBuf)> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .collect();
    // `hwmon10` comes after `hwmon9`.
    found.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    found
}
