//! Numbers and words from sysfs files.
//!
//! Opens the file for each reading: one that vanishes, or is replaced in a container, is then noticed.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::energy::sensors::sensor::SensorError;

/// The count in a file of one line.
pub fn count(path: &Path) -> Result<u64, SensorError> {
    let failed = |error| SensorError::from_io(path, error);
    // The longest `u64` has 20 digits: no allocation at every tick.
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

/// The first line of a file; none if it cannot be read.
pub fn word(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.lines().next()?.trim().to_owned())
}

/// What a directory holds, by name; empty if it cannot be read.
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
