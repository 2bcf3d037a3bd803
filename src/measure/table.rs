//! Summary as a table for a terminal.

use std::fmt;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::ensemble::{Ensemble, Oracle};
use super::fit::{Errors, Fit};
use super::stats::Estimate;
use super::summary::{ModelResult, Summary};

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = ["accuracy", "failed", "first token", "seconds", "tokens out", "energy is"];
        self.table(f, &header, answers)?;
        let header = ["J", "J total", "W", "W total", "IPW", "IPW total", "IPJ", "IPJ total"];
        self.table(f, &header, energy)?;
        if self.results.iter().any(|result| result.perplexity.is_some()) {
            self.table(f, &["perplexity", "PPW", "PPJ"], perplexity)?;
        }
        if self.results.iter().any(|result| result.over_repeats.is_some()) {
            let header = ["repeats", "σ accuracy", "σ J", "σ IPW", "σ IPJ"];
            self.table(f, &header, over_repeats)?;
        }
        for result in &self.results {
            writeln!(f, "{} × {}: {}", result.model, result.batch, costs(result))?;
        }
        if let Some(together) = &self.ensemble {
            writeln!(f, "{}", ensemble(together))?;
        }
        write!(
            f,
            "\nJ is what a request added beyond idle power, total includes the idle energy of its time (– where that is \
             unknown). IPW = mean outcome / mean\nwatts, IPJ = mean outcome / mean joules; total is the paper's definition. \
             ± is half a 95 % interval over questions: Wilson's of shares,\nelse by bootstrap; what a sensor or a table gets \
             wrong as a whole is in its band, not in ±. Failed requests are in no other figure."
        )
    }
}

impl Summary {
    /// A table with one line for each model and batch.
    fn table(
        &self,
        f: &mut fmt::Formatter<'_>,
        header: &[&str],
        cells: fn(&ModelResult) -> Vec<String>,
    ) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(["model", "batch"].iter().chain(header));
        for result in &self.results {
            let names = [result.model.clone(), result.batch.to_string()];
            table.add_row(names.into_iter().chain(cells(result)));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{}\n", table.trim_fmt())
    }
}

fn answers(result: &ModelResult) -> Vec<String> {
    let quality = result.quality.map_or("unknown", |quality| quality.label());
    let band = result.band.map_or_else(String::new, |[low, high]| format!(", ×{low:.2}–{high:.2}"));
    vec![
        result.accuracy.map_or_else(none, percent),
        format!("{} of {}", result.failed, result.requests),
        result.first_token_s.p50.map_or_else(none, |seconds| format!("{:.0} ms", seconds * 1e3)),
        result.seconds.map_or_else(none, |seconds| format!("{:.2}", seconds.value)),
        format!("{:.0}", result.output_tokens),
        format!("{quality}{band}"),
    ]
}

fn energy(result: &ModelResult) -> Vec<String> {
    let total = result.with_idle.as_ref();
    let show = |estimate: Option<Estimate>| estimate.map_or_else(none, plus_minus);
    vec![
        show(result.joules) + &unknown(result),
        show(total.and_then(|total| total.joules)),
        show(result.watts),
        show(total.and_then(|total| total.watts)),
        show(result.ipw),
        show(total.and_then(|total| total.ipw)),
        show(result.ipj),
        show(total.and_then(|total| total.ipj)),
    ]
}

fn perplexity(result: &ModelResult) -> Vec<String> {
    let figures = [result.perplexity, result.ppw, result.ppj];
    figures.into_iter().map(|figure| figure.map_or_else(none, plus_minus)).collect()
}

fn over_repeats(result: &ModelResult) -> Vec<String> {
    let Some(spread) = result.over_repeats else { return vec![none(); 5] };
    let show = |value: Option<f64>| value.map_or_else(none, digits);
    let accuracy = spread.accuracy.map_or_else(none, |value| format!("{:.1} %", value * 100.0));
    let figures = [spread.joules, spread.ipw, spread.ipj].map(show);
    [spread.repeats.to_string(), accuracy].into_iter().chain(figures).collect()
}

/// What all models of the run come to together.
fn ensemble(together: &Ensemble) -> String {
    let mut lines = vec![format!("\nAll models, {} questions:", together.questions)];
    for (model, share) in &together.coverage {
        lines.push(format!("  {model} answers {}", percent(*share)));
    }
    if let Some(share) = together.best_of_local {
        lines.push(format!("  at least one local model answers {}", percent(share)));
    }
    if let Some(Oracle { accuracy, joules, saving }) = together.oracle {
        lines.push(format!(
            "  an oracle that asks the cheapest right one answers {} for {} J a question and saves {} of the energy of {} alone",
            percent(accuracy),
            digits(joules),
            percent(saving),
            together.best
        ));
    }
    for (domain, model) in &together.smallest_adequate {
        lines.push(format!("  smallest adequate for {domain}: {model}"));
    }
    lines.join("\n")
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
