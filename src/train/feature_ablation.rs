//! Ablation of text features: designs compared on the same rows and folds, by quality and cost.
//!
//! Measures only; the served features are fixed. Latencies depend on the machine, so the comparison
//! is not part of the card.

use std::fmt::Write;
use std::hint::black_box;
use std::time::Instant;

use serde::Serialize;

use super::inputs::Inputs;
use super::metrics::{Ranking, Reliability, quantile};
use super::model_heads::CrossValidation;
use super::outcomes::Data;
use super::pair_eval::cross_validated;
use super::vectors::Vectors;
use crate::routing::AdequacyModel;
use crate::routing::adequacy::Head;
use crate::routing::text::{BUCKETS, STRUCTURE, TextVector};

/// One design on one source.
#[derive(Clone, Debug, Serialize)]
pub struct Design {
    pub source: String,
    pub name: String,
    /// Mean over repeated cross-validation with nested choices.
    pub ranking: Ranking,
    /// Standard deviation of APGR between the repeats.
    pub apgr_sd: f64,
    pub reliability: Reliability,
    /// Median for one text on this machine, microseconds.
    pub latency_us: f64,
    /// Memory for a pair of models, bytes.
    pub bytes: u64,
    /// Energy for one text, if metered.
    pub joules: Option<f64>,
}

pub(super) fn compare(
    data: &Data,
    source: usize,
    unseen: Option<&AdequacyModel>,
    seed: u64,
    vectors: &[Vectors],
    tell: &dyn Fn(&'static str, usize, usize),
) -> Vec<Design> {
    let rows: Vec<usize> =
        (0..data.rows.len()).filter(|&row| data.rows[row].source == source).collect();
    let with_all = vectors.iter().filter(|vectors| vectors.known(data, &rows) == rows.len());
    let more = with_all
        .flat_map(|vectors| [false, true].map(|ngrams| Inputs { ngrams, vectors: Some(vectors) }));
    let all: Vec<Inputs> = std::iter::once(Inputs::SERVED).chain(more).collect();
    let text_us = text_latency_us(data, &rows);
    let one = |(at, inputs): (usize, &Inputs)| {
        tell("comparing designs", at, all.len());
        let bench = |seed| CrossValidation::of(data, source, unseen, seed, *inputs);
        let found = cross_validated(&bench, seed);
        let of_vectors = inputs.vectors.map_or(0.0, |vectors| vectors.latency_us);
        let ngrams = if inputs.ngrams { BUCKETS } else { 0 };
        let wide = inputs.vectors.map_or(0, |vectors| vectors.width);
        Design {
            source: data.sources[source].name.clone(),
            name: name(*inputs),
            ranking: found.ranking,
            apgr_sd: found.apgr_sd,
            reliability: found.reliability,
            latency_us: of_vectors + text_us,
            bytes: inputs.vectors.map_or(0, |vectors| vectors.bytes)
                + 8 * (ngrams + STRUCTURE + wide) as u64,
            joules: inputs.vectors.and_then(|vectors| vectors.joules),
        }
    };
    all.iter().enumerate().map(one).collect()
}

fn name(inputs: Inputs) -> String {
    let ngrams = if inputs.ngrams { "hashed n-grams + structure" } else { "structure" };
    match inputs.vectors {
        Some(vectors) => format!("{} + {ngrams}", vectors.design),
        None => ngrams.to_owned(),
    }
}

/// Median time to vectorise a text about as long as the rows' and to score two heads, microseconds.
fn text_latency_us(data: &Data, rows: &[usize]) -> f64 {
    let head = Head { intercept: 0.0, structure: vec![0.1; STRUCTURE], ngrams: vec![0.1; BUCKETS] };
    // The texts themselves are not kept; a text of about as many n-grams replaces each.
    let mut times: Vec<f64> = rows
        .iter()
        .take(500)
        .map(|&row| {
            let text = "plain wording ".repeat(1 + data.rows[row].text.ngrams.len() / 10);
            let start = Instant::now();
            let vector = TextVector::of_text(&text);
            black_box(head.score(&vector) + head.score(&vector));
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    quantile(&times, 0.5)
}

/// The comparison as a Markdown page.
pub fn comparison(designs: &[Design], command: &str) -> String {
    let mut text = format!(
        "# Router designs compared\n\nMade by:\n\n```sh\n{command}\n```\n\n{ABOUT}\n\
         | source | design | APGR | CPT50 | CPT80 | ECE | latency | size | energy |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    );
    for design in designs {
        let Ranking { apgr, cpt50, cpt80 } = design.ranking;
        let energy =
            design.joules.map_or_else(|| "—".to_owned(), |joules| format!("{joules:.2} J"));
        // Writing to a string cannot fail, so the result is ignored.
        let _ = writeln!(
            text,
            "| {} | {} | {apgr:.3} ± {:.3} | {cpt50:.1} % | {cpt80:.1} % | {:.3} | {:.0} µs | {} KB | {energy} |",
            design.source,
            design.name,
            design.apgr_sd,
            design.reliability.ece,
            design.latency_us,
            design.bytes / 1000,
        );
    }
    text
}

const ABOUT: &str = "\
Each row is a design: what the router reads of a text. All are learnt from the same labels and judged on the same folds (5-fold × 4, ±
between the four; every choice made again inside the rows learnt from). APGR and CPT as RouteLLM's code computes them; by chance 0.5,
50 %, 80 %. Latency is the median for one text on the machine that ran this, for a pair of models; energy is what the gateway booked.
The router that is kept reads the first design; whether another is worth its latency and joules is for the table to say.
";
