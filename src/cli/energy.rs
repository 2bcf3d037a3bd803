//! `wattgate check --energy`: what this machine has to meter energy with, what is used, and why not the rest.
//!
//! Reads sensors for a moment; changes nothing.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io;
use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use super::FAILED;
use crate::config;
use crate::energy::discovery::{Finding, power};
use crate::energy::sensors::sensor::Band;
use crate::energy::sensors::{Coverage, Kind};
use crate::energy::{Config, Quality, SensorChoice, discover};

mod elsewhere;

use elsewhere::Elsewhere;

/// How long sensors are watched to see whether they move: counters of cards move every 100 ms.
const WATCHED: Duration = Duration::from_millis(300);

#[derive(Serialize)]
struct Report {
    sensors: SensorChoice,
    cadence_ms: u64,
    /// Whether a kind is insisted on that cannot be had: then `wattgate serve` does not start.
    refused: bool,
    /// What figures of local requests will be labelled with; absent when they will be unknown.
    quality: Option<Quality>,
    devices: Vec<Row>,
    #[serde(flatten)]
    elsewhere: Elsewhere,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    finding: Finding,
    /// Power just now; absent for what is not used or tells none.
    #[serde(skip_serializing_if = "Option::is_none")]
    watts: Option<f64>,
    /// Why a sensor in use tells no power just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// `config`: none if there is no file yet. Prints the report as a person or (`json`) a machine reads it, and gives the exit code: 1 when nothing can meter as the
/// config wants.
#[expect(clippy::print_stdout, reason = "a command talks to a person")]
pub(super) fn run(config: Option<&config::Config>, json: bool) -> anyhow::Result<u8> {
    let default = Config::default();
    let energy = config.map_or(&default, |config| &config.energy);
    let report = report(energy, Elsewhere::of(energy, config))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", text(&report));
    }
    Ok(if report.refused { FAILED } else { 0 })
}

fn report(config: &Config, elsewhere: Elsewhere) -> io::Result<Report> {
    let mut found = discover(config);
    let refused = config.sensors.kind().is_some() && !found.meters_here();
    let quality = found.quality();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let watched = runtime.block_on(power::measure(&mut found.used, WATCHED));
    let devices = found.findings.into_iter().map(|finding| {
        let seen = watched.iter().find(|(name, _)| finding.used && *name == finding.device);
        let (watts, problem) = match seen {
            None => (None, None),
            Some((_, Ok(Some(watts)))) => (Some(watts.0), None),
            Some((_, Ok(None))) => {
                (None, Some(format!("has not moved in {} ms", WATCHED.as_millis())))
            }
            Some((_, Err(error))) => (None, Some(error.to_string())),
        };
        Row { finding, watts, problem }
    });
    let (sensors, cadence_ms) = (config.sensors, config.cadence_ms);
    let devices = devices.collect();
    Ok(Report { sensors, cadence_ms, refused, quality, devices, elsewhere })
}

fn text(report: &Report) -> String {
    let mut text =
        format!("sensors = \"{}\", read every {} ms\n", report.sensors.label(), report.cadence_ms);
    let (used, not): (Vec<&Row>, Vec<&Row>) =
        report.devices.iter().partition(|row| row.finding.used);
    if !used.is_empty() {
        let mut table = table(&["USED", "KIND", "COVERS", "QUALITY", "BAND", "NOW", "AT"]);
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
    let mut table = table(&["NOT USED", "KIND", "WHY"]);
    for row in not {
        let why = row.finding.why_not.as_deref().unwrap_or_default();
        table.add_row([&*row.finding.device, row.finding.kind.label(), why]);
    }
    let _ = writeln!(text, "\n{}", table.trim_fmt());
    let outcome = match report.quality {
        _ if report.refused => {
            "`wattgate serve` will not start: energy.sensors insists on what is not here."
        }
        None => "The energy of local requests will be unknown.",
        Some(Quality::Measured) => "The energy of local requests will be measured.",
        Some(Quality::Calibrated) => "The energy of local requests will be calibrated.",
        Some(Quality::Estimated | Quality::Assumed) => {
            "The energy of local requests will be estimated; what a better sensor needs is said above."
        }
    };
    let _ = writeln!(text, "\n{outcome}");
    for note in notes(report) {
        let _ = writeln!(text, "{note}");
    }
    let _ = write!(text, "\n{}", report.elsewhere.text());
    text
}

/// What an operator should know beside the outcome.
fn notes(report: &Report) -> Vec<String> {
    let here = || {
        let used = report.devices.iter().filter(|row| row.finding.used);
        used.filter(|row| row.finding.coverage != Coverage::Elsewhere)
    };
    let silent: Vec<&str> =
        here().filter(|row| row.problem.is_some()).map(|row| &*row.finding.device).collect();
    let silent = (!silent.is_empty())
        .then(|| format!("But it is unknown while nothing comes from: {}.", silent.join(", ")));
    let shared = here().any(|row| row.finding.kind != Kind::CpuModel).then(|| {
        "These sensors see all that runs here: what works beside the engines is charged to the requests of that time."
            .to_owned()
    });
    let advice: BTreeSet<&str> =
        report.devices.iter().filter_map(|row| row.finding.advice).collect();
    let advice = advice.into_iter().map(|advice| format!("\n{advice}"));
    silent.into_iter().chain(shared).chain(advice).collect()
}

/// How far the truth may be from a figure, in percent of it.
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

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(head.to_vec());
    table
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::energy::sensors::SkipReason;
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
            why_not: why.as_ref().map(ToString::to_string),
            advice: why.and_then(|why| why.advice(kind)),
        };
        Row { finding, watts: None, problem: None }
    }

    fn report(devices: Vec<Row>) -> Report {
        let quality = Some(Quality::Measured);
        let elsewhere = Elsewhere::of(&Config::default(), None);
        let sensors = SensorChoice::Auto;
        Report { sensors, cadence_ms: 50, refused: false, quality, devices, elsewhere }
    }

    #[test]
    fn a_counter_for_root_only_comes_with_commands_to_paste_once() {
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
    fn a_sensor_that_shows_nothing_takes_the_promise_back() {
        let silent = Row { problem: Some("io".to_owned()), ..row("package-0", Kind::Rapl, None) };
        let text = text(&report(vec![silent]));
        assert!(text.contains("unknown while nothing comes from: package-0"), "{text}");
    }

    #[test]
    fn bands_are_told_in_percent() {
        let band = |low, high| band_text(Band { low, high });
        assert_eq!(
            [band(1.0, 1.0), band(0.95, 1.05), band(1.1 / 3.3, 8.0 / 3.3)],
            ["as counted", "±5 %", "-67 % to +142 %"]
        );
    }
}
