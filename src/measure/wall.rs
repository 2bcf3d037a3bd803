//! Readings of a wall meter: a CSV file that somebody recorded, or a smart plug asked over HTTP while the load runs.
//!
//! Power over time only; what it means for a sensor is `super::calibrate`'s.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::energy::sensors::wall::Api;

/// How long a plug may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where readings come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WallMeter {
    Csv(PathBuf),
    /// Any generation; `host` or `host:port`.
    Shelly(String),
    Tasmota(String),
}

impl FromStr for WallMeter {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once(':') {
            Some(("shelly", host)) if !host.is_empty() => Self::Shelly(host.to_owned()),
            Some(("tasmota", host)) if !host.is_empty() => Self::Tasmota(host.to_owned()),
            _ => Self::Csv(text.into()),
        })
    }
}

/// The kind of meter, without its address.
impl fmt::Display for WallMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Csv(_) => "csv",
            Self::Shelly(_) => "shelly",
            Self::Tasmota(_) => "tasmota",
        })
    }
}

/// Power at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Seconds since the Unix epoch.
    pub unix_s: f64,
    pub watts: f64,
}

#[derive(Debug, thiserror::Error)]
pub enum WallError {
    #[error("cannot read {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}:{line}: {reason}", .path.display())]
    Line { path: PathBuf, line: usize, reason: String },
    #[error("the wall meter at {host} does not answer: {source}")]
    Http { host: String, source: reqwest::Error },
    #[error(
        "the wall meter at {0} tells no power in a form this build knows (Shelly Gen1 /status or Gen2 RPC, Tasmota Status 8)"
    )]
    Unknown(String),
}

/// Now, as readings count it.
pub fn unix_now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Mean power from `start_s` to `end_s`; none with fewer than three readings in that time, which could be anything.
pub fn mean_watts(readings: &[Reading], start_s: f64, end_s: f64) -> Option<f64> {
    let inside: Vec<f64> = readings
        .iter()
        .filter(|reading| (start_s..=end_s).contains(&reading.unix_s))
        .map(|reading| reading.watts)
        .collect();
    (inside.len() >= 3).then(|| inside.iter().sum::<f64>() / inside.len() as f64)
}

/// Reads lines of time and watts, in this order unless a header names the columns otherwise. Time is in seconds since the
/// Unix epoch or as in 2026-11-23T14:05:00Z.
pub fn read_csv(path: &Path) -> Result<Vec<Reading>, WallError> {
    let text = fs::read_to_string(path)
        .map_err(|source| WallError::Read { path: path.to_owned(), source })?;
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).peekable();
    let mut columns = (0, 1);
    if let Some((_, first)) = lines.peek()
        && let Some(named) = header(first)
    {
        columns = named;
        lines.next();
    }
    let reading = |(at, line): (usize, &str)| {
        let cells: Vec<&str> = line.split([',', ';', '\t']).map(str::trim).collect();
        let cell = |place: usize| cells.get(place).copied().unwrap_or_default().trim_matches('"');
        let bad = |reason: String| WallError::Line { path: path.to_owned(), line: at + 1, reason };
        let unix_s = seconds(cell(columns.0)).ok_or_else(|| {
            bad(format!(
                "`{}` is no time: Unix seconds, or as in 2026-11-23T14:05:00Z",
                cell(columns.0)
            ))
        })?;
        let watts = cell(columns.1).parse::<f64>().ok().filter(|watts| watts.is_finite());
        let watts =
            watts.ok_or_else(|| bad(format!("`{}` is no power in watts", cell(columns.1))))?;
        Ok(Reading { unix_s, watts })
    };
    lines.map(reading).collect()
}

/// The places of time and watts, if the line is a header.
fn header(line: &str) -> Option<(usize, usize)> {
    let names: Vec<String> = line
        .split([',', ';', '\t'])
        .map(|name| name.trim().trim_matches('"').to_lowercase())
        .collect();
    let find = |prefixes: &[&str]| {
        names.iter().position(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
    };
    Some((find(&["time", "unix", "date"])?, find(&["watt", "power", "apower", "w"])?))
}

fn seconds(text: &str) -> Option<f64> {
    let number = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite());
    number.or_else(|| Some(text.parse::<Timestamp>().ok()?.as_nanosecond() as f64 / 1e9))
}

/// Asks a plug for its power now, in each form its maker's devices know.
pub async fn ask(meter: &WallMeter, http: &reqwest::Client) -> Result<Reading, WallError> {
    let (host, forms): (&str, &[Api]) = match meter {
        WallMeter::Csv(path) => return Err(WallError::Unknown(path.display().to_string())),
        WallMeter::Shelly(host) => (host, &[Api::ShellyGen2, Api::ShellyGen2Pm, Api::ShellyGen1]),
        WallMeter::Tasmota(host) => (host, &[Api::Tasmota]),
    };
    for form in forms {
        let (path, query) = form.path_and_query(0);
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        let url = format!("http://{host}/{}{query}", path.join("/"));
        let failed = |source| WallError::Http { host: host.to_owned(), source };
        let response = http.get(url).timeout(PATIENCE).send().await.map_err(failed)?;
        if response.status().is_success()
            && let Ok(watts) = form.watts(0, &response.bytes().await.map_err(failed)?)
        {
            return Ok(Reading { unix_s: unix_now_s(), watts });
        }
    }
    Err(WallError::Unknown(host.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Reading>, WallError> {
        let path = tempfile::tempdir().unwrap().keep().join("wall.csv");
        fs::write(&path, text).unwrap();
        read_csv(&path)
    }

    #[test]
    fn plain_lines_headers_and_times_are_understood() {
        let plain = read("1000.5,40.25\n1001.5,41\n").unwrap();
        assert_eq!(
            plain,
            [Reading { unix_s: 1000.5, watts: 40.25 }, Reading { unix_s: 1001.5, watts: 41.0 }]
        );
        let named = read("id;Power (W);Time\n1;40.25;1970-01-01T00:16:40.5Z\n").unwrap();
        assert_eq!(named, [plain[0]]);
        let wrong = read("time,watts\n1000,40\nyesterday,41\n").unwrap_err().to_string();
        assert!(wrong.contains(":3: `yesterday` is no time"), "{wrong}");
    }

    #[test]
    fn a_mean_takes_three_readings_of_its_time() {
        let readings: Vec<Reading> = (0..10_u8)
            .map(|second| Reading { unix_s: f64::from(second), watts: f64::from(second) })
            .collect();
        assert_eq!(mean_watts(&readings, 2.0, 4.0), Some(3.0));
        assert_eq!(mean_watts(&readings, 2.0, 3.5), None);
    }

    #[test]
    fn a_meter_is_a_file_unless_it_says_what_it_is() {
        let meter = |text: &str| text.parse::<WallMeter>().unwrap();
        assert_eq!(meter("shelly:10.0.0.7"), WallMeter::Shelly("10.0.0.7".to_owned()));
        assert_eq!(meter("tasmota:plug:8080"), WallMeter::Tasmota("plug:8080".to_owned()));
        assert_eq!(meter("C:wall.csv"), WallMeter::Csv("C:wall.csv".into()));
        assert_eq!(meter("shelly:10.0.0.7").to_string(), "shelly");
    }
}
