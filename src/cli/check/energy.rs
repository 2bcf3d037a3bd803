//! `wattgate check --energy`: energy sensors of this machine, which of them are used, and why the
//! others are not.
//!
//! Reads sensors for a moment and changes nothing.

mod unmetered;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use self::unmetered::Unmetered;
use crate::cli::console::say;
use crate::cli::exit::FAILED;
use crate::cli::table::wrapped;
use crate::config;
use crate::energy::discovery::{Finding, power, power::Watched};
use crate::energy::sensors::mirrors::Relation;
use crate::energy::sensors::sensor::Band;
use crate::energy::sensors::{Coverage, Kind, SkipReason};
use crate::energy::{Config, Quality, SensorChoice, discover};

/// Period over which a counter must move: those of graphics cards move every 100 ms.
const WATCHED: Duration = Duration::from_millis(300);

#[derive(Serialize)]
struct Report {
    sensors: SensorChoice,
    cadence_ms: u64,
    /// The config requires a kind of sensor that is not available: `wattgate serve` would not
    /// start.
    refused: bool,
    /// Label of the energy of local requests; absent if it will be unknown.
    quality: Option<Quality>,
    devices: Vec<Row>,
    #[serde(flatten)]
    unmetered: Unmetered,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    finding: Finding,
    /// Current power; absent if the sensor is not used or reports none.
    #[serde(skip_serializing_if = "Option::is_none")]
    watts: Option<f64>,
    /// Configured idle power.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_watts: Option<f64>,
    /// Why a used sensor reports no power.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Prints the report as text or JSON and returns the exit code: 1 if nothing can meter as the
/// config requires. `config` is `None` if there is no file yet.
pub(super) fn run(config: Option<&config::Config>, json: bool) -> anyhow::Result<u8> {
    let default = Config::default();
    let energy = config.map_or(&default, |config| &config.energy);
    let report = report(energy, Unmetered::of(energy, config))?;
    if json {
        say(&serde_json::to_string_pretty(&report)?);
    } else {
        say(text(&report).trim_end());
    }
    Ok(if report.refused { FAILED } else { 0 })
}

fn report(config: &Config, unmetered: Unmetered) -> io::Result<Report> {
    let mut found = discover(config);
    let refused = config.sensors.kind().is_some() && !found.meters_here();
    let quality = found.quality();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let watched = runtime.block_on(power::watch(&mut found.used, WATCHED));
    let configured = |name: &str| {
        let used = found.used.iter().find(|one| *one.sensor.device().name == *name)?;
        used.sensor.device().idle.map(|idle| idle.0)
    };
    let devices = found.findings.into_iter().map(|finding| {
        let seen = watched.iter().find(|one| finding.used && one.device == finding.device);
        let idle_watts = configured(&finding.device).filter(|_| finding.used);
        seen.map_or(
            Row { finding: finding.clone(), watts: None, idle_watts, problem: None },
            |seen| row(finding, seen, idle_watts),
        )
    });
    let (sensors, cadence_ms) = (config.sensors, config.cadence_ms);
    let devices = devices.collect();
    Ok(Report { sensors, cadence_ms, refused, quality, devices, unmetered })
}

/// A used sensor with what it showed.
fn row(finding: Finding, seen: &Watched, idle_watts: Option<f64>) -> Row {
    if let Relation::MirrorOf(other) = &seen.relation {
        let why = SkipReason::Mirror(Arc::clone(other)).to_string();
        let finding = Finding { used: false, why_not: Some(why), ..finding };
        return Row { finding, watts: None, idle_watts: None, problem: None };
    }
    let (watts, problem) = match &seen.power {
        Ok(Some(watts)) => (Some(watts.0), None),
        Ok(None) => (None, Some(format!("has not moved in {} ms", seen.watched.as_millis()))),
        Err(error) => (None, Some(error.to_string())),
    };
    Row { finding, watts, idle_watts, problem }
}

fn text(report: &Report) -> String {
    let mut text =
        format!("sensors = \"{}\", read every {} ms\n", report.sensors.label(), report.cadence_ms);
    let (used, not): (Vec<&Row>, Vec<&Row>) =
        report.devices.iter().partition(|row| row.finding.used);
    if !used.is_empty() {
        let mut table = wrapped(["USED", "KIND", "COVERS", "QUALITY", "BAND", "NOW", "AT"]);
        for row in used {
            let Finding { kind, device, at, coverage, quality, band, .. } = &row.finding;
            let watts = row.watts.map(|watts| format!("{watts:.1} W"));
            let (now, band) = (watts.or(row.problem.clone()).unwrap_or_default(), band_text(*band));
            table.add_row([
                device,
                kind.label(),
                coverage.label(),
                quality.label(),
                &band,
                &now,
                at,
            ]);
        }
        let _ = writeln!(text, "\n{}", table.trim_fmt());
    }
    let mut table = wrapped(["NOT USED", "KIND", "WHY"]);
    for row in not {
        let why = row.finding.why_not.as_deref().unwrap_or_default();
        table.add_row([&*row.finding.device, row.finding.kind.label(), why]);
    }
    let _ = writeln!(text, "\n{}", table.trim_fmt());
    let outcome = match report.quality {
        _ if report.refused => {
            "`wattgate serve` will not start: energy.sensors requires a sensor that is not available."
        }
        None => "The energy of local requests will be unknown.",
        Some(Quality::Measured) => "The energy of local requests will be measured.",
        Some(Quality::Calibrated) => "The energy of local requests will be calibrated.",
        Some(_) if !missing(report).is_empty() => {
            "The energy of local requests will be estimated: a part of this machine cannot be read."
        }
        Some(Quality::Estimated | Quality::Assumed | Quality::Unknown) => {
            "The energy of local requests will be estimated; the table above shows what a better sensor needs."
        }
    };
    let _ = writeln!(text, "\n{outcome}");
    for note in notes(report) {
        let _ = writeln!(text, "{note}");
    }
    let _ = write!(text, "\n{}", report.unmetered.text());
    text
}

/// Notes below the outcome.
fn notes(report: &Report) -> Vec<String> {
    let here = || {
        let used = report.devices.iter().filter(|row| row.finding.used);
        used.filter(|row| row.finding.coverage != Coverage::Elsewhere)
    };
    let missing = missing(report).into_iter();
    let silent: Vec<&str> =
        here().filter(|row| row.problem.is_some()).map(|row| &*row.finding.device).collect();
    let silent = (!silent.is_empty()).then(|| {
        let instead = if report.sensors == SensorChoice::Auto {
            "estimated from CPU time, or unknown where a card works,"
        } else {
            "unknown"
        };
        format!("But it is {instead} while nothing comes from: {}.", silent.join(", "))
    });
    let too_high = here().filter_map(|row| {
        let (watts, idle) = row.watts.zip(row.idle_watts).filter(|(watts, idle)| watts < idle)?;
        Some(format!(
            "idle_watts = {idle} is above the {watts:.1} W that {} draws now: the smallest power seen counts instead.",
            row.finding.device
        ))
    });
    let too_high: Vec<String> = too_high.collect();
    let shared = here().any(|row| row.finding.kind != Kind::CpuModel).then(|| {
        "These sensors measure the whole machine: energy of other processes is attributed to the requests of that time."
            .to_owned()
    });
    let advice: BTreeSet<&str> =
        report.devices.iter().filter_map(|row| row.finding.advice).collect();
    let advice = advice.into_iter().map(|advice| format!("\n{advice}"));
    missing.chain(silent).chain(too_high).chain(shared).chain(advice).collect()
}

/// The shares of this machine that cannot be read.
fn missing(report: &Report) -> Vec<String> {
    let count = |coverage, of: fn(&Finding) -> bool| {
        let findings = report.devices.iter().map(|row| &row.finding);
        findings.filter(|one| one.coverage == coverage && of(one)).count()
    };
    let line = |(coverage, plural)| {
        let missing = count(coverage, |one| one.missing);
        let all = missing + count(coverage, |one| one.used);
        (missing > 0).then(|| {
            format!(
                "Missing: {missing} of {all} {plural}. Joules are those of the rest; the upper end of the band allows for what is missing."
            )
        })
    };
    let places = [
        (Coverage::Processor, "processors"),
        (Coverage::Memory, "memories"),
        (Coverage::Accelerator, "cards (a model that uses only these has unknown energy)"),
    ];
    places.into_iter().filter_map(line).collect()
}

/// Band of a figure in percent of it.
fn band_text(band: Band) -> String {
    let (below, above) = ((1.0 - band.low) * 100.0, (band.high - 1.0) * 100.0);
    if below == 0.0 && above == 0.0 {
        "as counted".to_owned()
    } else if (below - above).abs() < 0.5 {
        format!("±{above:.0} %")
    } else {
        format!("-{below:.0} % to +{above:.0} %")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::energy::sensors::sensor::SensorError;

    fn row(device: &str, kind: Kind, why: Option<SkipReason>) -> Row {
        let finding = Finding {
            kind,
            device: device.into(),
            at: "/sys".to_owned(),
            coverage: Coverage::Processor,
            quality: Quality::Measured,
            band: Band::EXACT,
            used: why.is_none(),
            missing: why.as_ref().is_some_and(|why| why.is_missing(Coverage::Processor)),
            why_not: why.as_ref().map(ToString::to_string),
            advice: why.and_then(|why| why.advice(kind)),
        };
        Row { finding, watts: None, idle_watts: None, problem: None }
    }

    fn report(devices: Vec<Row>) -> Report {
        let quality = Some(Quality::Measured);
        let unmetered = Unmetered::of(&Config::default(), None);
        let sensors = SensorChoice::Auto;
        Report { sensors, cadence_ms: 50, refused: false, quality, devices, unmetered }
    }

    #[test]
    fn an_unreadable_counter_comes_with_commands_to_paste_once() {
        let denied = |zone: &str| {
            let path = Path::new("/sys/class/powercap").join(zone).join("energy_uj");
            row(zone, Kind::Rapl, Some(SkipReason::Unreadable(SensorError::Denied { path })))
        };
        let text = text(&report(vec![denied("intel-rapl:0"), denied("intel-rapl:1")]));
        for zone in 0..2 {
            let command = format!("sudo chmod a+r /sys/class/powercap/intel-rapl:{zone}/energy_uj");
            assert!(text.contains(&command), "{text}");
        }
        assert_eq!(text.matches("/etc/udev/rules.d/60-wattgate.rules").count(), 1, "{text}");
    }

    #[test]
    fn a_silent_sensor_withdraws_the_promise_of_measured_energy() {
        let silent = Row { problem: Some("io".to_owned()), ..row("package-0", Kind::Rapl, None) };
        let text = text(&report(vec![silent]));
        assert!(text.contains("while nothing comes from: package-0"), "{text}");
    }

    #[test]
    fn bands_are_shown_in_percent() {
        let band = |low, high| band_text(Band { low, high });
        assert_eq!(
            [band(1.0, 1.0), band(0.95, 1.05), band(1.1 / 3.3, 8.0 / 3.3)],
            ["as counted", "±5 %", "-67 % to +142 %"]
        );
    }
}
