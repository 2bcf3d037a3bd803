//! `wattgate check --energy`: what this machine has to meter energy with, what is used, and why not the rest.
//!
//! Reads sensors for a moment; changes nothing.

use std::fmt::Write;
use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use super::FAILED;
use crate::energy::sensors::Finding;
use crate::energy::{Config, Quality, SensorChoice, survey};

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

/// Prints the report as a person or (`json`) a machine reads it, and gives the exit code: 1 when nothing can meter as the
/// config wants.
#[expect(clippy::print_stdout, reason = "a command talks to a person")]
pub(super) fn run(config: &Config, json: bool) -> anyhow::Result<u8> {
    let report = report(config);
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", text(&report));
    }
    Ok(if report.refused { FAILED } else { 0 })
}

fn report(config: &Config) -> Report {
    let mut survey = survey(config);
    let refused = config.sensors.kind().is_some() && !survey.meters_here();
    let quality = survey.quality();
    let watched = survey.watch(WATCHED);
    let devices = survey.findings.into_iter().map(|finding| {
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
    Report { sensors, cadence_ms, refused, quality, devices: devices.collect() }
}

fn text(report: &Report) -> String {
    let mut text =
        format!("sensors = \"{}\", read every {} ms\n", report.sensors.label(), report.cadence_ms);
    let (used, not): (Vec<&Row>, Vec<&Row>) =
        report.devices.iter().partition(|row| row.finding.used);
    if !used.is_empty() {
        let mut table = table(&["USED", "KIND", "COVERS", "QUALITY", "NOW", "AT"]);
        for row in used {
            let Finding { kind, device, at, place, quality, .. } = &row.finding;
            let watts = row.watts.map(|watts| format!("{watts:.1} W"));
            let now = watts.or(row.problem.clone()).unwrap_or_default();
            table.add_row([device, kind.label(), place.label(), quality.label(), &now, at]);
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
    text
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(head.to_vec());
    table
}
