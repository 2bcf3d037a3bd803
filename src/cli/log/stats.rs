//! Counts of a log as text.

use std::fmt::Write;

use jiff::Timestamp;

use crate::cli::table::{align_right, plain};
use crate::measure::stats::quantile_of;
use crate::traffic::census::{Census, ModelCount};

/// By model: requests, tokens, energy, price, latency and labels.
pub(super) fn table(census: &Census) -> String {
    let mut table = plain([
        "model",
        "requests",
        "answered",
        "tokens in",
        "out",
        "energy",
        "quality",
        "price",
        "p50",
        "p95",
        "label",
    ]);
    for (model, count) in &census.models {
        table.add_row(cells(model, count));
    }
    align_right(&mut table, &[1, 2, 3, 4, 5, 7, 8, 9, 10]);
    format!("{}\n\n{}", table.trim_fmt(), span(census))
}

fn cells(model: &str, count: &ModelCount) -> [String; 11] {
    let unknown = |sum: String, unknown: u64| {
        if unknown == 0 { sum } else { format!("{sum} + {unknown} unknown") }
    };
    let latency = |share| {
        let found = quantile_of(count.total_ms.iter().map(|ms| f64::from(*ms)).collect(), share);
        found.map_or("–".to_owned(), |ms| format!("{ms:.0} ms"))
    };
    let label = if count.labels == 0 {
        "–".to_owned()
    } else {
        format!("{:.3} of {}", count.label_sum / count.labels as f64, count.labels)
    };
    [
        if model.is_empty() { "(no answer)".to_owned() } else { model.to_owned() },
        count.requests.to_string(),
        count.answered.to_string(),
        count.prompt_tokens.to_string(),
        count.completion_tokens.to_string(),
        unknown(count.joules().to_string(), count.unknown_energy_requests),
        count.energy.map_or("–", |figure| figure.quality.label()).to_owned(),
        unknown(count.dollars.to_string(), count.unknown_price_requests),
        latency(0.5),
        latency(0.95),
        label,
    ]
}

/// What is wrong with the log, or that nothing is.
pub(super) fn faults(census: &Census) -> String {
    let mut text = span(census);
    let faults = [
        (
            census.torn_lines,
            "files end in an incomplete line: the gateway was killed, one record is lost",
        ),
        (census.bad_lines, "lines are no records of a version that this build reads"),
        (census.duplicate_ids, "records have the id of an earlier one"),
        (census.bad_propensities, "records have a propensity that is not above 0 and at most 1"),
        (
            census.steps_back,
            "records are from more than an hour before an earlier one: the clock was set back",
        ),
    ];
    for (count, fault) in faults.into_iter().filter(|(count, _)| *count > 0) {
        let _ = write!(text, "\n{count} {fault}");
    }
    if census.is_sound() {
        text += "\nevery line is whole";
    }
    text
}

fn span(census: &Census) -> String {
    let time = |unix_ms: Option<u64>| {
        let time = Timestamp::from_millisecond(i64::try_from(unix_ms?).ok()?).ok()?;
        Some(time.strftime("%Y-%m-%d %H:%M:%S").to_string())
    };
    let versions: Vec<String> = census
        .versions
        .iter()
        .map(|(version, count)| format!("{count} of version {version}"))
        .collect();
    let mut text = format!("{} records", census.records);
    if !versions.is_empty() {
        let _ = write!(text, " ({})", versions.join(", "));
    }
    let _ = write!(text, ", {} annotations", census.annotations);
    if let (Some(first), Some(last)) = (time(census.first_unix_ms), time(census.last_unix_ms)) {
        let _ = write!(text, ", from {first} to {last} UTC");
    }
    text
}
