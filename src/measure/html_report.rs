//! The report as one HTML page that needs nothing else: no script, no network.
//!
//! Text and layout only; the figures are the summary's, the pictures `super::chart`'s.

use maud::{Markup, PreEscaped, html};

use super::chart::{self, colour, label};
use super::fit::{Errors, Fit};
use super::stats::{Estimate, Interval};
use super::summary::{ModelResult, Part, Summary};
use super::table::digits;
use crate::energy::Source;
use crate::page::page;
use crate::plot::DrawError;

/// The whole page.
pub fn render(summary: &Summary) -> Result<String, DrawError> {
    let graded = summary.results.iter().any(|result| result.accuracy.is_some());
    let metered = summary.results.iter().any(|result| result.joules.is_some());
    let main = html! {
        (head(summary))
        (headline(summary))
        @if graded && metered { (accuracy_and_energy(summary)?) }
        (parts(summary, graded, metered)?)
        (together(summary))
        (costs(summary)?)
        (method())
    };
    Ok(page("Intelligence per watt", &main))
}

fn head(summary: &Summary) -> Markup {
    let settings = &summary.settings;
    html! {
        header {
            h1 { "Intelligence per watt" }
            p.lead {
                b { "IPW" } " is the share of right answers divided by the mean watts of a request, "
                b { "IPJ" } " the same divided by its mean joules: higher is better."
            }
            p {
                (settings.machine) ". Suite " b { (settings.suite) }
                @if let Some(limit) = settings.limit { ", " (limit) " questions spread over it" }
                ", answers of up to " (settings.max_tokens) " tokens, temperature " (settings.temperature)
                ", seed " (settings.seed)
                @if settings.warm_cache { ", prompts partly from caches" } @else { ", no prompt from a cache" }
                ". Measured " (summary.measured) " (UTC)."
            }
        }
    }
}

fn accuracy_and_energy(summary: &Summary) -> Result<Markup, DrawError> {
    Ok(html! {
        section {
            h2 { "Accuracy and energy" }
            p {
                "Up and to the left is better. Bars: 95 % bootstrap intervals over questions. Energy of "
                @for (index, result) in summary.results.iter().enumerate() {
                    @if index > 0 { ", " }
                    b { (label(result)) } ": " (quality_badge(result))
                }
                "."
            }
            figure { (svg(&chart::frontier(summary)?)) }
        }
    })
}

fn quality_badge(result: &ModelResult) -> Markup {
    let quality = result.quality.map_or("unknown", |quality| quality.label());
    html! { span class={ "quality " (quality) } { (quality) } }
}

/// Columns of a table, with their units.
type Columns = [(&'static str, &'static str)];
const ANSWERS: &Columns = &[
    ("model", ""),
    ("at a time", "requests"),
    ("questions", ""),
    ("accuracy", "%"),
    ("first token", "p50"),
    ("whole answer", "s"),
    ("tokens", "in / out"),
    ("energy is", ""),
];
const ENERGY: &Columns =
    &[("model", ""), ("energy", "J per request"), ("power", "W"), ("IPW", "1/W"), ("IPJ", "1/J")];
const PERPLEXITY: &Columns =
    &[("model", ""), ("perplexity", ""), ("PPW", "1/(ppl·W)"), ("PPJ", "1/(ppl·J)")];

fn headline(summary: &Summary) -> Markup {
    let told = summary.results.iter().any(|result| result.perplexity.is_some());
    html! {
        section {
            (table(summary, ANSWERS, answers))
            (table(summary, ENERGY, energy))
            @if told { (table(summary, PERPLEXITY, perplexity)) }
            p.note {
                "Small figures: 95 % intervals. –: unknown, which is not zero. " b { "total" }
                ": with the idle energy of the time. Failed requests are in no other figure."
            }
        }
    }
}

fn table(summary: &Summary, columns: &Columns, row: fn(&ModelResult) -> Markup) -> Markup {
    html! {
        div.scroll {
            table {
                thead { tr { @for (name, unit) in columns { th { (name) small { (unit) } } } } }
                tbody { @for result in &summary.results { tr { (row(result)) } } }
            }
        }
    }
}

fn answers(result: &ModelResult) -> Markup {
    html! {
        td { b { (result.model) } small { (result.route.label()) } }
        td { (result.batch) }
        td {
            (result.questions)
            @if result.failed > 0 { small { (result.failed) " of " (result.requests) " requests failed" } }
        }
        td { (interval(result.accuracy, percent)) }
        td { (milliseconds(result.first_token_s.p50, result.first_token_s.p95)) }
        td { (interval(result.seconds, digits)) }
        td {
            (whole(result.prompt_tokens)) " / " (whole(result.output_tokens))
            small { (whole(result.cached_tokens)) " cached" }
        }
        td {
            (quality_badge(result))
            @if let Some([low, high]) = result.band {
                small { (format!("true value ×{low:.2} to ×{high:.2}")) }
            }
        }
    }
}

fn energy(result: &ModelResult) -> Markup {
    let total = result.with_idle.as_ref();
    let figures = [
        (result.joules, total.and_then(|total| total.joules)),
        (result.watts, total.and_then(|total| total.watts)),
        (result.ipw, total.and_then(|total| total.ipw)),
        (result.ipj, total.and_then(|total| total.ipj)),
    ];
    html! {
        td {
            b { (label(result)) }
            @if result.energy_unknown > 0 {
                small { "energy of " (result.energy_unknown) " of " (result.requests) " unknown" }
            }
        }
        @for (marginal, total) in figures {
            td {
                (interval(marginal, digits))
                @if total.is_some() { small { "total " } (interval(total, digits)) }
            }
        }
    }
}

fn perplexity(result: &ModelResult) -> Markup {
    html! {
        td { b { (label(result)) } }
        @for figure in [result.perplexity, result.ppw, result.ppj] {
            td { (interval(figure, digits)) }
        }
    }
}

/// What the models come to together.
fn together(summary: &Summary) -> Markup {
    let Some(together) = &summary.ensemble else { return html! {} };
    html! {
        section {
            h2 { "All models together" }
            ul {
                @for (model, share) in &together.coverage {
                    li { b { (model) } " answers " (interval(Some(*share), percent)) " of " (together.questions) " questions." }
                }
                @if let Some(share) = together.best_of_local {
                    li { "At least one local model answers " (interval(Some(share), percent)) "." }
                }
                @if let Some(oracle) = together.oracle {
                    li {
                        "An oracle that asks the cheapest model that is right answers "
                        (interval(Some(oracle.accuracy), percent)) " for " (digits(oracle.joules))
                        " J a question: it saves " (interval(Some(oracle.saving), percent))
                        " of the energy of " b { (together.best) } " alone."
                    }
                }
                @for (domain, model) in &together.smallest_adequate {
                    li { "Smallest adequate for " (domain) ": " b { (model) } "." }
                }
            }
        }
    }
}

/// Joules and accuracy of each domain and difficulty, where they are known.
fn parts(summary: &Summary, graded: bool, metered: bool) -> Result<Markup, DrawError> {
    type PartsOf = fn(&ModelResult) -> &[Part];
    let kinds: [(&str, PartsOf); 2] =
        [("domain", |result| &result.by_domain), ("difficulty", |result| &result.by_difficulty)];
    Ok(html! {
        section {
            h2 { "Where the joules go" }
            (legend(summary))
            div.pair {
                @for (kind, parts) in kinds {
                    @if metered {
                        (picture(&format!("Energy by {kind}"), &chart::joules_by(summary, parts)?))
                    }
                    @if graded {
                        (picture(&format!("Accuracy by {kind}"), &chart::accuracy_by(summary, parts)?))
                    }
                }
            }
        }
    })
}

/// The fit of each local model and batch, with a picture of its errors.
fn costs(summary: &Summary) -> Result<Markup, DrawError> {
    Ok(html! {
        section {
            h2 { "What a request costs" }
            p {
                "Non-negative least squares over all answers, with 95 % intervals over questions. Dots: answers, \
                 each as a fit without its own question predicts it. Grey lines: 15 % off."
            }
            div.pair { @for result in &summary.results { (cost(result)?) } }
        }
    })
}

fn cost(result: &ModelResult) -> Result<Markup, DrawError> {
    Ok(html! {
        figure {
            figcaption { (label(result)) " " (quality_badge(result)) }
            @match &result.fit {
                None => p { "No fit: " (result.no_fit.as_deref().unwrap_or("unknown")) "." },
                Some(fit) => {
                    (coefficients(fit))
                    (errors(fit))
                    @if !fit.points.is_empty() { (svg(&chart::residuals(fit)?)) }
                }
            }
            (baseline(result))
        }
    })
}

fn coefficients(fit: &Fit) -> Markup {
    let (joules, seconds) = (fit.cost.joules, fit.cost.seconds);
    let rows = [
        ("a request", joules.map(|joules| joules.fixed), seconds.fixed),
        ("a prompt token", joules.map(|joules| joules.prefill_token), seconds.prefill_token),
        ("an output token", joules.map(|joules| joules.decode_token), seconds.decode_token),
    ];
    html! {
        table.costs {
            thead { tr { th {} th { "energy" } th { "time" } } }
            tbody {
                @for (index, (name, joules, seconds)) in rows.into_iter().enumerate() {
                    tr {
                        td { (name) }
                        td {
                            @match joules {
                                Some(joules) => { (digits(joules * 1e3)) " mJ" },
                                None => (UNKNOWN),
                            }
                            @if let Some(intervals) = fit.intervals {
                                @let Interval { low, high } = intervals[index];
                                small { (digits(low * 1e3)) " – " (digits(high * 1e3)) }
                            }
                        }
                        td { (digits(seconds * 1e3)) " ms" }
                    }
                }
            }
        }
    }
}

fn errors(fit: &Fit) -> Markup {
    let kinds = [
        (fit.errors, "by these costs and the tokens it had"),
        (fit.tracked, "the same, corrected by the answers before it as the gateway does"),
        (fit.predicted, "corrected likewise, with the tokens expected before it"),
        (fit.gateway, "as the gateway predicted while it was measured"),
    ];
    let known: Vec<(Errors, &str)> =
        kinds.into_iter().filter_map(|(errors, what)| Some((errors?, what))).collect();
    let unit = if fit.cost.batch == 1 { "requests" } else { "waves" };
    html! {
        @if !known.is_empty() {
            p { "Energy of " (fit.held_out) " " (unit) " held out, predicted" }
            ul {
                @for (Errors { p50, p90 }, what) in known {
                    li {
                        (what) ": off by " (percent(p50)) " (median), nine in ten by at most " (percent(p90))
                    }
                }
            }
        }
    }
}

fn baseline(result: &ModelResult) -> Markup {
    let load = result.load_joules.map(|joules| format!("loading it takes {joules}"));
    // CPU time knows nothing of what the machine draws anyway.
    let draws = if result.source == Some(Source::CpuModel) { "adds" } else { "draws" };
    let idle =
        result.idle_watts.map(|watts| format!("loaded and idle it {draws} {} W", digits(watts.0)));
    let known: Vec<String> = load.into_iter().chain(idle).collect();
    html! { @if !known.is_empty() { p { (known.join("; ")) "." } } }
}

fn legend(summary: &Summary) -> Markup {
    html! {
        p.legend {
            @for (index, result) in summary.results.iter().enumerate() {
                span { i style={ "background:" (colour(index)) } {} (label(result)) }
            }
        }
    }
}

fn picture(title: &str, drawing: &str) -> Markup {
    html! { figure { figcaption { (title) } (svg(drawing)) } }
}

/// A drawing of `super::chart`, which escapes the names in it.
fn svg(drawing: &str) -> PreEscaped<&str> {
    PreEscaped(drawing)
}

const UNKNOWN: &str = "–";

fn interval(estimate: Option<Estimate>, show: impl Fn(f64) -> String) -> Markup {
    html! {
        @match estimate {
            Some(Estimate { value, low, high }) => {
                (show(value)) small { (show(low)) " – " (show(high)) }
            },
            None => (UNKNOWN),
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn whole(tokens: f64) -> String {
    format!("{tokens:.0}")
}

fn milliseconds(p50: Option<f64>, p95: Option<f64>) -> Markup {
    let show = |seconds: f64| format!("{:.0} ms", seconds * 1e3);
    html! {
        @match p50.zip(p95) {
            Some((p50, p95)) => { (show(p50)) small { "p95 " (show(p95)) } },
            None => (UNKNOWN),
        }
    }
}

fn method() -> Markup {
    html! {
        section {
            h2 { "How to read this" }
            ul {
                li {
                    b { "Joules" } " are marginal: what a request added beyond the idle power that this run itself saw, split \
                    exactly over the requests that ran together; " b { "total" } " adds the idle energy of the time. " b { "measured" } " is a hardware counter, " b { "calibrated" } " a sensor set against a wall \
                    meter, " b { "estimated" } " CPU time times watts, " b { "assumed" } " a table of cloud data \
                    centres. Compare models of one quality; across qualities the bands decide."
                }
                li {
                    b { "Watts" } " are a request's own joules over its own seconds. Several at a time share the machine, so each \
                    draws less."
                }
                li {
                    b { "IPW" } " is mean outcome / mean watts and " b { "IPJ" } " mean outcome / mean joules (accuracy per joule): \
                    ratios of means, as in " i { "Intelligence per Watt" } " (arXiv:2511.07885), whose power is the device's \
                    with idle: compare its figures with the totals. IPW favours the slow: for routing, IPJ counts."
                }
                li {
                    b { "Intervals" } " say how far another draw of questions would move a figure. An error of the sensor moves \
                    all of them alike; that is the band."
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::journal::Settings;
    use super::super::journal::tests::row as sample;
    use super::*;
    use crate::energy::Hardware;

    #[test]
    fn a_page_stands_alone_and_escapes_names() {
        let mut rows: Vec<_> = (0..40_u32)
            .map(|number| {
                let mut row = sample(
                    &format!("q{number}"),
                    f64::from(number % 2),
                    1.0 + f64::from(number % 7),
                );
                (row.prompt_tokens, row.output_tokens) =
                    (20 + u64::from(number) * 3, 1 + u64::from(number % 7) * 10);
                row
            })
            .collect();
        rows[0].model = "<script>".to_owned();
        let settings = Settings {
            suite: "own".to_owned(),
            suite_sha256: String::new(),
            limit: Some(40),
            max_tokens: 64,
            temperature: 0.0,
            logprobs: false,
            seed: 1,
            warm_cache: false,
            build: String::new(),
            machine: Hardware { processor: "Abacus <1>".to_owned(), cpus: 2 },
        };
        let summary = Summary::of(&rows, settings, &BTreeMap::new(), "2026-11-23".to_owned());
        let page = render(&summary).unwrap();
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script"), "names are escaped");
        assert!(page.matches("<svg").count() >= 5 && page.contains("held out"));
        assert!(page.contains("Abacus &lt;1&gt; (2 logical CPUs)"), "the machine is named");
        let outside = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http://") && !outside.contains("https://"), "it loads nothing");
    }
}
