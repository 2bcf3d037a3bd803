//! Readings of a wall meter: a recorded CSV file, or a smart plug polled over HTTP during the load.
//!
//! Power over time only; `super::calibrate` applies it to a sensor.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::energy::sensors::remote::wall::Api;

/// Longest reply of a plug.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Source of readings.
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

/// Kind of meter, without its address.
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
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}:{line}: {reason}", .path.display())]
    Line { path: PathBuf, line: usize, reason: String },
    #[error("the wall meter at {host} does not answer: {source}")]
    Http { host: String, source: reqwest::Error },
    #[error(
        "the wall meter at {0} reports no power in a supported form (Shelly Gen1 /status or Gen2 RPC, Tasmota Status 8)"
    )]
    Unknown(String),
}

/// Current time in the unit of readings.
pub fn unix_now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Mean power from `start_s` to `end_s`. `None` with fewer than three readings in that time, or
/// with a gap longer than half of it. `readings` are in order of time.
pub fn mean_watts(readings: &[Reading], start_s: f64, end_s: f64) -> Option<f64> {
    let from = readings.partition_point(|reading| reading.unix_s < start_s);
    let to = readings.partition_point(|reading| reading.unix_s <= end_s);
    let inside = readings.get(from..to).filter(|inside| inside.len() >= 3)?;
    let (first, last) = (inside.first()?, inside.last()?);
    let longest_s = (end_s - start_s) / 2.0;
    let pairs = || inside.windows(2).map(|pair| (pair[0], pair[1]));
    let mut gaps = pairs().map(|(a, b)| b.unix_s - a.unix_s);
    if first.unix_s - start_s > longest_s
        || end_s - last.unix_s > longest_s
        || gaps.any(|gap| gap > longest_s)
    {
        return None;
    }
    let joules: f64 = pairs().map(|(a, b)| (b.unix_s - a.unix_s) * (a.watts + b.watts) / 2.0).sum();
    Some(joules / (last.unix_s - first.unix_s))
}

/// Cells of loggers without a reading.
const NO_READING: [&str; 7] = ["", "nan", "null", "none", "unknown", "unavailable", "-"];
/// A larger number of seconds is one of milliseconds: it would be the year 5138.
const MILLISECONDS_FROM: f64 = 1e11;

/// Reads lines of time and watts, in this order unless a header names the columns, separated by
/// commas, semicolons or tabs. Time is in seconds or milliseconds since the Unix epoch, or as in
/// 2026-11-23T14:05:00Z with any offset. Lines may be unordered and repeated; a line without a
/// reading is a gap.
pub fn read_csv(path: &Path) -> Result<Vec<Reading>, WallError> {
    let text = fs::read_to_string(path)
        .map_err(|source| WallError::Read { path: path.to_owned(), source })?;
    let text = text.trim_start_matches('\u{feff}');
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).peekable();
    let mut columns = (0, 1);
    if let Some((_, first)) = lines.peek()
        && let Some(named) = header(first)
    {
        columns = named;
        lines.next();
    }
    let mut readings = Vec::new();
    for (at, line) in lines {
        let bad = |reason| WallError::Line { path: path.to_owned(), line: at + 1, reason };
        readings.extend(reading(line, columns).map_err(bad)?);
    }
    readings.sort_by(|a: &Reading, b| a.unix_s.total_cmp(&b.unix_s));
    readings.dedup_by(|a, b| a.unix_s.total_cmp(&b.unix_s).is_eq());
    Ok(readings)
}

/// `None` for a line without a reading.
fn reading(line: &str, columns: (usize, usize)) -> Result<Option<Reading>, String> {
    let cells = cells(line);
    let cell = |place: usize| cells.get(place).copied().unwrap_or_default();
    let unix_s = seconds(cell(columns.0)).ok_or_else(|| {
        format!(
            "`{}` is no time: Unix seconds, or as in 2026-11-23T14:05:00Z or 2026-11-23T15:05:00+01:00",
            cell(columns.0)
        )
    })?;
    let watts = cell(columns.1);
    if NO_READING.contains(&watts.to_lowercase().as_str()) {
        return Ok(None);
    }
    // A comma that does not separate cells may be a decimal separator.
    let number = watts.replace(',', ".").parse::<f64>().ok().filter(|watts| watts.is_finite());
    let watts = number.ok_or_else(|| format!("`{watts}` is no power in watts"))?;
    Ok(Some(Reading { unix_s, watts }))
}

fn cells(line: &str) -> Vec<&str> {
    let separator = [';', '\t'].into_iter().find(|other| line.contains(*other)).unwrap_or(',');
    line.split(separator).map(|cell| cell.trim().trim_matches('"')).collect()
}

/// Columns of time and watts, if the line is a header.
fn header(line: &str) -> Option<(usize, usize)> {
    let names: Vec<String> = cells(line).into_iter().map(str::to_lowercase).collect();
    let find = |prefixes: &[&str]| {
        names.iter().position(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
    };
    Some((
        find(&["time", "unix", "date", "last_changed"])?,
        find(&["watt", "power", "apower", "w", "state"])?,
    ))
}

fn seconds(text: &str) -> Option<f64> {
    let number = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite());
    let number =
        number.map(|number| if number > MILLISECONDS_FROM { number / 1e3 } else { number });
    number.or_else(|| Some(text.parse::<Timestamp>().ok()?.as_nanosecond() as f64 / 1e9))
}

/// Polls the current power of a plug, trying each API of its maker.
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
        let response = http.get(url).timeout(TIMEOUT).send().await.map_err(failed)?;
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
    fn loggers_write_in_any_order_zone_and_notation_and_leave_gaps() {
        let messy = "\u{feff}entity_id,state,last_changed\n\
            sensor.plug,41.5,2026-11-23T15:05:02+01:00\n\
            sensor.plug,unavailable,2026-11-23T14:05:01Z\n\
            sensor.plug,40,2026-11-23 14:05:00.000Z\n\
            sensor.plug,40,2026-11-23T14:05:00Z\n\
            sensor.plug,,2026-11-23T09:05:03-05:00\n";
        let readings = read(messy).unwrap();
        let start_s = 1_795_442_700.0;
        assert_eq!(
            readings,
            [
                Reading { unix_s: start_s, watts: 40.0 },
                Reading { unix_s: start_s + 2.0, watts: 41.5 }
            ]
        );
        assert_eq!(read("1795442700000;40,5").unwrap()[0].unix_s.to_bits(), start_s.to_bits());
        assert_eq!(read("1795442700000;40,5").unwrap()[0].watts.to_bits(), 40.5_f64.to_bits());
        for (text, complaint) in [
            ("1000,40\n1001,forty\n", ":2: `forty` is no power in watts"),
            ("1000,inf\n", ":1: `inf` is no power"),
            ("2026-11-23 14:05:00,40\n", ":1: `2026-11-23 14:05:00` is no time"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn a_mean_takes_three_readings_of_its_time() {
        let readings: Vec<Reading> = (0..10_u8)
            .map(|second| Reading { unix_s: f64::from(second), watts: f64::from(second) })
            .collect();
        assert_eq!(mean_watts(&readings, 2.0, 4.0), Some(3.0));
        assert_eq!(mean_watts(&readings, 2.0, 3.5), None);
        assert_eq!(mean_watts(&readings, 5.0, 30.0), None, "most of it is a gap");
        let uneven = [(0.0, 10.0), (1.0, 10.0), (2.0, 10.0), (6.0, 50.0), (10.0, 50.0)];
        let uneven = uneven.map(|(unix_s, watts)| Reading { unix_s, watts });
        assert_eq!(mean_watts(&uneven, 0.0, 10.0), Some(34.0), "by time, not by reading");
        assert_eq!(mean_watts(&uneven[..4], 0.0, 10.0), Some(70.0 / 3.0));
        assert_eq!(mean_watts(&uneven[..3], 0.0, 10.0), None);
    }

    #[test]
    fn a_meter_is_a_file_unless_it_has_a_known_prefix() {
        let meter = |text: &str| text.parse::<WallMeter>().unwrap();
        assert_eq!(meter("shelly:10.0.0.7"), WallMeter::Shelly("10.0.0.7".to_owned()));
        assert_eq!(meter("tasmota:plug:8080"), WallMeter::Tasmota("plug:8080".to_owned()));
        assert_eq!(meter("C:wall.csv"), WallMeter::Csv("C:wall.csv".into()));
        assert_eq!(meter("shelly:10.0.0.7").to_string(), "shelly");
    }
}
