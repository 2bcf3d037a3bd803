//! The report as one HTML page that needs nothing else: no script, no network.
//!
//! Text and layout only; the figures are the summary's, the pictures `super::chart`'s.

use std::fmt::Write;

use super::chart::{self, colour, label};
use super::fit::{Errors, Fit};
use super::stats::{Estimate, Interval};
use super::summary::{ModelResult, Summary};
use super::table::digits;
use crate::energy::Source;
use crate::plot::DrawError;

const STYLE: &str = include_str!("html_report.css");

/// The whole page.
pub(super) fn render(summary: &Summary) -> Result<String, DrawError> {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>Intelligence per watt</title><style>{STYLE}</style></head><body><main>\n"
    );
    page += &head(summary);
    page += &headline(summary);
    let graded = summary.results.iter().any(|result| result.accuracy.is_some());
    let metered = summary.results.iter().any(|result| result.joules.is_some());
    if graded && metered {
        page += &figure_of_models(summary)?;
    }
    page += &parts(summary, graded, metered)?;
    page += &costs(summary)?;
    page += METHOD;
    page += "</main></body></html>\n";
    Ok(page)
}

fn head(summary: &Summary) -> String {
    let settings = &summary.settings;
    format!(
        "<header><h1>Intelligence per watt</h1><p class=\"lead\"><b>IPW</b> is the share of right answers divided by the mean watts of a request, \
         <b>IPJ</b> the same divided by its mean joules: higher is better.</p>\
         <p>{}. Suite <b>{}</b>{}, answers of up to {} tokens, temperature {}, seed {}. Measured {} (UTC).</p></header>\n",
        escape(&settings.machine.to_string()),
        escape(&settings.suite),
        settings
            .limit
            .map_or_else(String::new, |limit| format!(", {limit} questions spread over it")),
        settings.max_tokens,
        settings.temperature,
        settings.seed,
        escape(&summary.measured),
    )
}

fn figure_of_models(summary: &Summary) -> Result<String, DrawError> {
    Ok(format!(
        "<section><h2>Accuracy and energy</h2><p>Up and to the left is better. Bars: 95 % bootstrap intervals over questions. {}</p><figure>{}</figure></section>\n",
        qualities(summary),
        chart::frontier(summary)?
    ))
}

/// How the energy of each model is known, in words.
fn qualities(summary: &Summary) -> String {
    let known = summary
        .results
        .iter()
        .map(|result| format!("<b>{}</b>: {}", escape(&label(result)), quality_badge(result)));
    format!("Energy of {}.", known.collect::<Vec<_>>().join(", "))
}

fn quality_badge(result: &ModelResult) -> String {
    let quality = result.quality.map_or("unknown", |quality| quality.label());
    format!("<span class=\"quality {quality}\">{quality}</span>")
}

fn headline(summary: &Summary) -> String {
    let names = [
        ("model", ""),
        ("at a time", "requests"),
        ("questions", ""),
        ("accuracy", "%"),
        ("energy", "J per request"),
        ("power", "W"),
        ("IPW", "1/W"),
        ("IPJ", "1/J"),
        ("first token", "p50"),
        ("whole answer", "s"),
        ("tokens", "in / out"),
        ("energy is", ""),
    ];
    let mut table = String::from("<section><div class=\"scroll\"><table><thead><tr>");
    for (name, unit) in names {
        // Writing to a string cannot fail, here and below.
        let _ = write!(table, "<th>{name}<small>{unit}</small></th>");
    }
    table += "</tr></thead><tbody>";
    for result in &summary.results {
        table += &row(result);
    }
    table += "</tbody></table></div><p class=\"note\">Small figures: 95 % intervals. –: unknown, which is not zero.</p></section>\n";
    table
}

fn row(result: &ModelResult) -> String {
    let band = result.band.map_or_else(String::new, |[low, high]| {
        format!("<small>true value ×{low:.2} to ×{high:.2}</small>")
    });
    let perplexity = result.perplexity.zip(result.ppj).map_or_else(String::new, |(value, ppj)| {
        format!("<small>perplexity {}, 1/(ppl·J) {}</small>", digits(value.value), digits(ppj))
    });
    let failed = match result.failed {
        0 => String::new(),
        failed => format!("<small>{failed} of {} requests failed</small>", result.requests),
    };
    let unknown = match result.energy_unknown {
        0 => String::new(),
        unknown => format!("<small>of {unknown} of {} unknown</small>", result.requests),
    };
    let cells = [
        format!("<b>{}</b><small>{}</small>", escape(&result.model), result.route.label()),
        result.batch.to_string(),
        format!("{}{failed}", result.questions),
        result.accuracy.map_or_else(none, |share| interval(share, percent)),
        result.joules.map_or_else(none, |joules| interval(joules, digits)) + &unknown,
        result.watts.map_or_else(none, |watts| interval(watts, digits)),
        result.ipw.map_or_else(none, |ratio| interval(ratio, digits)),
        result.ipj.map_or_else(none, |ratio| interval(ratio, digits)) + &perplexity,
        milliseconds(result.first_token_s.p50, result.first_token_s.p95),
        result.seconds.map_or_else(none, |seconds| interval(seconds, digits)),
        format!(
            "{:.0} / {:.0}<small>{:.0} cached</small>",
            result.prompt_tokens, result.output_tokens, result.cached_tokens
        ),
        quality_badge(result) + &band,
    ];
    cells.iter().fold("<tr>".to_owned(), |row, cell| row + "<td>" + cell + "</td>") + "</tr>"
}

/// Joules and accuracy of each domain and difficulty, as far as there are any.
fn parts(summary: &Summary, graded: bool, metered: bool) -> Result<String, DrawError> {
    let mut text =
        format!("<section><h2>Where the joules go</h2>{}<div class=\"pair\">", legend(summary));
    if metered {
        text +=
            &picture("Energy by domain", &chart::joules_by(summary, |result| &result.by_domain)?);
    }
    if graded {
        text += &picture(
            "Accuracy by domain",
            &chart::accuracy_by(summary, |result| &result.by_domain)?,
        );
    }
    if metered {
        text += &picture(
            "Energy by difficulty",
            &chart::joules_by(summary, |result| &result.by_difficulty)?,
        );
    }
    if graded {
        text += &picture(
            "Accuracy by difficulty",
            &chart::accuracy_by(summary, |result| &result.by_difficulty)?,
        );
    }
    Ok(text + "</div></section>\n")
}

/// What was fitted for each local model and batch, with a picture of how well.
fn costs(summary: &Summary) -> Result<String, DrawError> {
    let mut text = String::from(
        "<section><h2>What a request costs</h2><p>Non-negative least squares over all answers, with 95 % intervals over questions. Dots: answers, \
         each as a fit without its own question predicts it. Grey lines: 15 % off.</p><div class=\"pair\">",
    );
    for result in &summary.results {
        let _ = write!(
            text,
            "<figure><figcaption>{} {}</figcaption>",
            escape(&label(result)),
            quality_badge(result)
        );
        match &result.fit {
            None => {
                let reason = result.no_fit.as_deref().unwrap_or("unknown");
                let _ = write!(text, "<p>No fit: {}.</p>", escape(reason));
            }
            Some(fit) => {
                text += &coefficients(fit);
                text += &errors(fit);
                if !fit.points.is_empty() {
                    text += &chart::residuals(fit)?;
                }
            }
        }
        text += &baseline(result);
        text += "</figure>";
    }
    Ok(text + "</div></section>\n")
}

fn coefficients(fit: &Fit) -> String {
    let (joules, seconds) = (fit.cost.joules, fit.cost.seconds);
    let rows = [
        ("a request", joules.map(|joules| joules.fixed), seconds.fixed),
        ("a prompt token", joules.map(|joules| joules.prefill_token), seconds.prefill_token),
        ("an output token", joules.map(|joules| joules.decode_token), seconds.decode_token),
    ];
    let mut text = String::from(
        "<table class=\"costs\"><thead><tr><th></th><th>energy</th><th>time</th></tr></thead><tbody>",
    );
    for (place, (name, joules, seconds)) in rows.into_iter().enumerate() {
        let between = fit.intervals.map_or_else(String::new, |intervals| {
            let Interval { low, high } = intervals[place];
            format!("<small>{} – {}</small>", digits(low * 1e3), digits(high * 1e3))
        });
        let joules = joules.map_or_else(none, |joules| format!("{} mJ", digits(joules * 1e3)));
        let _ = write!(
            text,
            "<tr><td>{name}</td><td>{joules}{between}</td><td>{} ms</td></tr>",
            digits(seconds * 1e3)
        );
    }
    text + "</tbody></table>"
}

fn errors(fit: &Fit) -> String {
    let kinds = [
        (fit.errors, "by these costs and the tokens it had"),
        (fit.tracked, "the same, corrected by the answers before it as the gateway does"),
        (fit.predicted, "corrected likewise, with the tokens expected before it"),
        (fit.gateway, "as the gateway predicted while it was measured"),
    ];
    let known = kinds.into_iter().filter_map(|(errors, what)| {
        let Errors { p50, p90 } = errors?;
        Some(format!(
            "<li>{what}: off by {} (median), nine in ten by at most {}</li>",
            percent(p50),
            percent(p90)
        ))
    });
    let known: String = known.collect();
    if known.is_empty() {
        return known;
    }
    format!(
        "<p>Energy of {} held out, predicted</p><ul>{known}</ul>",
        if fit.cost.batch == 1 {
            format!("{} requests", fit.held_out)
        } else {
            format!("{} waves", fit.held_out)
        }
    )
}

fn baseline(result: &ModelResult) -> String {
    let load = result.load_joules.map(|joules| format!("loading it takes {joules}"));
    // CPU time knows nothing of what the machine draws anyway.
    let draws = if result.source == Some(Source::CpuModel) { "adds" } else { "draws" };
    let idle =
        result.idle_watts.map(|watts| format!("loaded and idle it {draws} {} W", digits(watts.0)));
    let known: Vec<String> = load.into_iter().chain(idle).collect();
    if known.is_empty() { String::new() } else { format!("<p>{}.</p>", known.join("; ")) }
}

fn legend(summary: &Summary) -> String {
    let keys = summary.results.iter().enumerate().map(|(place, result)| {
        format!(
            "<span><i style=\"background:{}\"></i>{}</span>",
            colour(place),
            escape(&label(result))
        )
    });
    format!("<p class=\"legend\">{}</p>", keys.collect::<String>())
}

fn picture(title: &str, svg: &str) -> String {
    format!("<figure><figcaption>{title}</figcaption>{svg}</figure>")
}

fn interval(estimate: Estimate, show: impl Fn(f64) -> String) -> String {
    format!(
        "{}<small>{} – {}</small>",
        show(estimate.value),
        show(estimate.low),
        show(estimate.high)
    )
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn milliseconds(p50: Option<f64>, p95: Option<f64>) -> String {
    let show = |seconds: f64| format!("{:.0} ms", seconds * 1e3);
    p50.zip(p95)
        .map_or_else(none, |(p50, p95)| format!("{}<small>p95 {}</small>", show(p50), show(p95)))
}

fn none() -> String {
    "–".to_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

const METHOD: &str = "<section><h2>How to read this</h2><ul>\
<li><b>Joules</b> are marginal: what a request added beyond idle power, split exactly over the requests that ran together. \
<b>measured</b> is a hardware counter, <b>calibrated</b> a sensor set against a wall meter, <b>estimated</b> CPU time times watts, \
<b>assumed</b> a table about somebody else's data centre. Compare models of one quality; across qualities the bands decide.</li>\
<li><b>Watts</b> are a request's own joules over its own seconds. Several at a time share the machine, so each draws less.</li>\
<li><b>IPW</b> is mean outcome / mean watts and <b>IPJ</b> mean outcome / mean joules (accuracy per joule): ratios of means, as in \
<i>Intelligence per Watt</i> (arXiv:2511.07885). IPW favours the slow: for routing, IPJ counts.</li>\
<li><b>Intervals</b> say how far another draw of questions would move a figure. An error of the sensor moves all of them alike; \
that is the band.</li></ul></section>\n";
