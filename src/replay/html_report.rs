//! A replay as one HTML page that needs nothing else.
//!
//! Text and layout only; the figures are the report's, the picture `super::chart`'s.

use maud::{Markup, PreEscaped, html};

use super::chart;
use super::evidence::Quantity;
use super::report::estimates::{Figure, lack};
use super::report::{QuantityEstimates, Report, Row};
use crate::page::page;
use crate::plot::{DrawError, percent};

/// The whole page; `log` is where the records are from.
pub fn render(report: &Report, log: &str) -> Result<String, DrawError> {
    let main = html! {
        header {
            h1 { "Routing policies on logged traffic" }
            p.lead {
                (report.requests) " requests of " b { (log) } ", decided again under each policy by the code that serves."
            }
            p {
                "Nothing was run. Where the log has an outcome for what a policy would have done, its quality and energy "
                "are estimated from outcomes, with 95 % intervals over conversations; elsewhere they are the router's predictions."
            }
        }
        section {
            h2 { "Quality and energy" }
            p { "Up and to the left is better. Filled: estimated from outcomes. Rings: predicted, without an interval." }
            figure { (PreEscaped(chart::quality_and_energy(report)?)) }
        }
        (savings(report))
        (estimates(report))
        (missing(report))
    };
    Ok(page("Routing policies on logged traffic", &main))
}

/// Energy, price and share of local answers beside what was served.
fn savings(report: &Report) -> Markup {
    let served = report.policies.first();
    html! {
        section {
            h2 { "Over the whole log" }
            div.scroll { table {
                thead { tr {
                    th { "policy" } th { "local" small { "of answers" } } th { "energy" small { "from log and predicted" } }
                    th { "change" small { "to what was served" } } th { "from log" small { "of requests" } }
                    th { "price" } th { "unanswered" } th { "quality" small { "predicted" } }
                } }
                tbody { @for row in &report.policies { tr {
                    td { b { (row.policy) } }
                    td { (row.share_local.map_or_else(none, percent)) }
                    td {
                        (row.energy.joules)
                        @if row.energy.unknown_requests > 0 { small { (row.energy.unknown_requests) " requests unknown" } }
                    }
                    td { (served.and_then(|served| change(served, row)).unwrap_or_else(none)) }
                    td { (percent(row.energy.metered_requests as f64 / row.requests.max(1) as f64)) }
                    td {
                        (row.dollars)
                        @if row.unknown_price_requests > 0 { small { (row.unknown_price_requests) " requests unknown" } }
                    }
                    td { (row.unanswered) }
                    td { (row.expected_quality.map_or_else(none, |quality| format!("{quality:.3}"))) }
                } } }
            } }
            p.note { "The oracle knows the label of the logged answer; it is over judged requests only. –: unknown, which is not zero." }
        }
    }
}

/// Change of the energy in percent; `None` if they do not answer the same number of requests, or
/// one is not known whole.
fn change(served: &Row, row: &Row) -> Option<String> {
    let known = |row: &Row| row.energy.unknown_requests == 0;
    let base = served.energy.joules.0;
    let same = (row.requests, row.unanswered) == (served.requests, served.unanswered);
    let comparable = known(served) && known(row) && same && base > 0.0;
    comparable.then(|| format!("{:+.1} %", 100.0 * (row.energy.joules.0 / base - 1.0)))
}

fn estimates(report: &Report) -> Markup {
    html! {
        section {
            h2 { "Estimated from outcomes, per request" }
            div.scroll { table {
                thead { tr {
                    th { "policy" } th { "quantity" } th { "verdict" }
                    th { "estimate" small { "95 % interval" } } th { "at any time" small { "95 % sequence" } }
                    th { "worth" small { "requests" } } th { "differs" small { "of choices" } } th { "unsupported" small { "of choices" } }
                } }
                tbody { @for row in &report.policies { @for one in &row.estimates {
                    @if one.support.requests > 0 { (estimate(&row.policy, one)) }
                } } }
            } }
            p.note {
                "Doubly robust where every choice was predicted, else self-normalised. The interval is for one look; "
                "the sequence holds however often the growing log is looked at."
            }
        }
    }
}

fn estimate(policy: &str, one: &QuantityEstimates) -> Markup {
    let figure = one.figure(one.headline);
    let supported = one.is_supported();
    html! {
        tr {
            td { b { (policy) } }
            td { (unit(one.quantity)) }
            td { span class={ "quality " (if supported { "measured" } else { "unknown" }) } {
                @if supported { "supported" } @else { "no verdict" }
            } }
            td { @if let Some(figure) = figure.filter(|_| supported) { (figure) } @else { "–" } }
            td {
                (figure.filter(|_| supported).and_then(Figure::any_time).unwrap_or_else(none))
            }
            td { (format!("{:.0} of {}", one.support.effective_sample_size, one.support.requests)) }
            td { (percent(one.support.disagreement)) }
            td { (percent(one.support.unsupported_mass)) }
        }
    }
}

/// What the log lacks, and how to get it.
fn missing(report: &Report) -> Markup {
    let lacks = report.policies.iter().flat_map(|row| lack(&row.policy, &row.estimates));
    html! {
        section {
            h2 { "What the log cannot tell" }
            ul {
                @for lack in lacks { li { (lack) } }
                @if let Some(advice) = report.advice() { li { (advice) } }
                li {
                    "What a conversation's earlier turns would have been under another policy is not simulated: each request is "
                    "decided with the cache and the model that it met."
                }
                li {
                    "The logged rules, applied again, choose the same model for " (report.reproduced) " of " (report.requests) " requests."
                }
            }
        }
    }
}

fn unit(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Quality => "quality, 0 to 1",
        Quantity::Joules => "J per request",
        Quantity::Dollars => "$ per request",
    }
}

fn none() -> String {
    "–".to_owned()
}
