//! Summary as a table for a terminal.

use std::fmt;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::fit::{Errors, Fit};
use super::stats::Estimate;
use super::summary::{ModelResult, Summary};

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header([
            "model",
            "batch",
            "accuracy",
            "J / request",
            "watts",
            "IPW (1/W)",
            "IPJ (1/J)",
            "first token",
            "seconds",
            "tokens out",
            "energy is",
        ]);
        for result in &self.results {
            table.add_row(cells(result));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{}\n", table.trim_fmt())?;
        for result in &self.results {
            writeln!(f, "{} × {}: {}", result.model, result.batch, costs(result))?;
        }
        write!(
            f,
            "\nIPW = mean outcome / mean watts, IPJ = mean outcome / mean joules (the paper's APW and APJ); ± is half a 95 % \
             bootstrap interval\nover questions; what a sensor or a table gets wrong as a whole is in its band, not in ±"
        )
    }
}

fn cells(result: &ModelResult) -> [String; 11] {
    let quality = result.quality.map_or("unknown", |quality| quality.label());
    let band = result.band.map_or_else(String::new, |[low, high]| format!(", ×{low:.2}–{high:.2}"));
    [
        result.model.clone(),
        result.batch.to_string(),
        result.accuracy.map_or_else(none, percent),
        result.joules.map_or_else(none, plus_minus) + &unknown(result),
        result.watts.map_or_else(none, plus_minus),
        result.ipw.map_or_else(none, plus_minus),
        result.ipj.map_or_else(none, plus_minus),
        result.first_token_s.p50.map_or_else(none, |seconds| format!("{:.0} ms", seconds * 1e3)),
        result.seconds.map_or_else(none, |seconds| format!("{:.2}", seconds.value)),
        format!("{:.0}", result.output_tokens),
        format!("{quality}{band}"),
    ]
}

/// Number of requests that the mean excludes.
fn unknown(result: &ModelResult) -> String {
    match result.energy_unknown {
        0 => String::new(),
        all if all == result.requests => String::new(),
        some => format!(" ({some} unknown)"),
    }
}

/// The fitted costs, or why there are none.
fn costs(result: &ModelResult) -> String {
    let Some(fit) = &result.fit else {
        return result.no_fit.clone().unwrap_or_default();
    };
    let seconds = fit.cost.seconds;
    let speed = format!(
        "{:.2} ms a prompt token, {:.2} ms an output token",
        seconds.prefill_token * 1e3,
        seconds.decode_token * 1e3
    );
    match fit.cost.joules {
        None => format!("energy unknown; {speed}"),
        Some(joules) => format!(
            "{:.1} mJ a prompt token, {:.1} mJ an output token, {:.0} mJ a request{}; {speed}",
            joules.prefill_token * 1e3,
            joules.decode_token * 1e3,
            joules.fixed * 1e3,
            errors(fit),
        ),
    }
}

/// Errors of the fit: median and 90th percentile of the held-out requests.
fn errors(fit: &Fit) -> String {
    let kinds = [
        (fit.errors, "by these costs"),
        (fit.tracked, "corrected by the answers before"),
        (fit.predicted, "with the tokens expected before"),
        (fit.gateway, "as predicted while measured"),
    ];
    let known = kinds.into_iter().filter_map(|(errors, what)| {
        let Errors { p50, p90 } = errors?;
        Some(format!("{:.1} % / {:.1} % {what}", p50 * 100.0, p90 * 100.0))
    });
    let known: Vec<String> = known.collect();
    if known.is_empty() {
        return String::new();
    }
    format!("; off by (median / p90 of {} held out) {}", fit.held_out, known.join(", "))
}

fn none() -> String {
    "–".to_owned()
}

/// A figure and half its interval.
fn plus_minus(estimate: Estimate) -> String {
    let half = (estimate.high - estimate.low) / 2.0;
    format!("{} ± {}", digits(estimate.value), digits(half))
}

fn percent(estimate: Estimate) -> String {
    let half = (estimate.high - estimate.low) / 2.0;
    format!("{:.1} ± {:.1} %", estimate.value * 100.0, half * 100.0)
}

/// Three significant digits.
pub(super) fn digits(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 100.0 || magnitude == 0.0 {
        return format!("{value:.0}");
    }
    if magnitude < 1e-3 {
        return format!("{value:.2e}");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 5")]
    let places = (2.0 - magnitude.log10().floor()).clamp(0.0, 5.0) as usize;
    format!("{value:.places$}")
}
